//! The system's allocator, counting what each thread allocates: tests beside each other do not disturb one another.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

pub struct Counting;

// SAFETY: every call is handed to the system's allocator as it is.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed());
        count(-layout.size().cast_signed());
        unsafe { System.realloc(place, layout, size) }
    }
}

fn count(change: isize) {
    let live = LIVE.get() + change;
    LIVE.set(live);
    MOST.set(MOST.get().max(live));
}

/// Bytes that this thread has allocated and that are not freed.
pub fn live() -> usize {
    LIVE.get().max(0).cast_unsigned()
}

/// The most of them since this was asked last.
pub fn most() -> usize {
    MOST.replace(LIVE.get()).max(0).cast_unsigned()
}
