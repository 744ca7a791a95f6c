//! The letters' case of names in answers from elsewhere.
//!
//! A question upstream goes in random letters, as a guard against forgers, and whatever of its name an answer repeats
//! comes back in them: owners, and names that a server wrote as a pointer to the question. The client sees its own.

use hickory_server::proto::rr::{Name, RData, Record as Rr};

/// Spells every name of a record, as far as it ends like `name`, as `name` does.
pub(super) fn respell(record: &mut Rr, name: &Name) {
    let respell = |own: &mut Name| {
        if let Some(spelled) = spelled(own, name) {
            *own = spelled;
        }
    };
    respell(&mut record.name);
    match &mut record.data {
        RData::CNAME(target) => respell(&mut target.0),
        RData::NS(target) => respell(&mut target.0),
        RData::PTR(target) => respell(&mut target.0),
        RData::MX(mx) => respell(&mut mx.exchange),
        RData::SRV(srv) => respell(&mut srv.target),
        RData::SOA(soa) => {
            respell(&mut soa.mname);
            respell(&mut soa.rname);
        }
        _ => {}
    }
}

/// The name with the labels that it ends in like another one, as that one spells them; `None` when that is no change.
fn spelled(own: &Name, like: &Name) -> Option<Name> {
    let (labels, wanted): (Vec<&[u8]>, Vec<&[u8]>) = (own.iter().collect(), like.iter().collect());
    let pairs = labels.iter().rev().zip(wanted.iter().rev());
    let common = pairs.take_while(|(own, like)| own.eq_ignore_ascii_case(like)).count();
    let (before, ending) = labels.split_at(labels.len() - common);
    let wanted = &wanted[wanted.len() - common..];
    if ending == wanted {
        return None;
    }
    before.iter().chain(wanted).try_fold(Name::root(), |name, label| name.append_label(*label).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_like_the_name_is_spelled_like_it() {
        let name = |text: &str| Name::from_ascii(text).expect("a name");
        for (own, like, wanted) in [
            ("wWw.eXample.ORG.", "www.Example.org.", Some("www.Example.org.")),
            ("eXample.ORG.", "www.Example.org.", Some("Example.org.")),
            ("API.eXample.ORG.", "www.Example.org.", Some("API.Example.org.")),
            ("a.wWw.eXample.ORG.", "www.Example.org.", Some("a.www.Example.org.")),
            ("www.Other.ORG.", "www.Example.org.", Some("www.Other.org.")),
            ("*.eXample.ORG.", "www.Example.org.", Some("*.Example.org.")),
            ("WWW.Example.net.", "www.Example.org.", None),
            ("www.Example.org.", "www.Example.org.", None),
            (".", "www.Example.org.", None),
        ] {
            assert_eq!(spelled(&name(own), &name(like)).map(|name| name.to_ascii()).as_deref(), wanted, "{own}");
        }
    }
}
