//! DNS packets: noise, and questions with some bytes changed.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use wharf::answer::dns::dry::Dry;

thread_local! {
    static DRY: RefCell<Dry> = RefCell::new(Dry::new());
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    DRY.with_borrow_mut(|dry| {
        if kind & 1 == 0 {
            dry.answer(rest);
            return;
        }
        let mut packet = Dry::sample(usize::from(kind >> 1));
        for change in rest.chunks_exact(2) {
            let at = usize::from(change[0]);
            match packet.get_mut(at) {
                Some(byte) => *byte = change[1],
                None => packet.push(change[1]),
            }
        }
        dry.answer(&packet);
    });
});
