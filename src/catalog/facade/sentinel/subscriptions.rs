//! What one client has subscribed to, by name and by pattern.

use super::reply::RespValue;

/// Subscriptions of one client.
const MOST: usize = 64;
/// The longest name or pattern: Sentinel's own channels have less than 32 bytes.
const LONGEST: usize = 128;

/// Channels and patterns of one client.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscriptions {
    channels: Vec<Vec<u8>>,
    patterns: Vec<Vec<u8>>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Channel,
    Pattern,
}

impl Subscriptions {
    pub(super) fn count(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    fn of(&mut self, by: By) -> &mut Vec<Vec<u8>> {
        match by {
            By::Channel => &mut self.channels,
            By::Pattern => &mut self.patterns,
        }
    }

    /// Subscribes; one reply for each, as Redis has it.
    pub(super) fn add(&mut self, by: By, names: &[Vec<u8>]) -> Vec<RespValue> {
        let kind = if by == By::Channel { "subscribe" } else { "psubscribe" };
        let add = |name: &Vec<u8>| {
            let is_known = self.of(by).contains(name);
            if !is_known && (self.count() == MOST || name.len() > LONGEST) {
                return RespValue::err(format_args!("at most {MOST} subscriptions of {LONGEST} bytes each"));
            }
            if !is_known {
                self.of(by).push(name.clone());
            }
            change(kind, Some(name), self.count())
        };
        names.iter().map(add).collect()
    }

    /// Ends subscriptions, all of a kind when none is named.
    pub(super) fn remove(&mut self, by: By, names: &[Vec<u8>]) -> Vec<RespValue> {
        let kind = if by == By::Channel { "unsubscribe" } else { "punsubscribe" };
        let names = if names.is_empty() { self.of(by).clone() } else { names.to_vec() };
        if names.is_empty() {
            return vec![change(kind, None, self.count())];
        }
        let remove = |name: &Vec<u8>| {
            self.of(by).retain(|known| known != name);
            change(kind, Some(name), self.count())
        };
        names.iter().map(remove).collect()
    }

    /// What is sent of an event: once by name, and once for each pattern that it fits.
    pub(super) fn messages<'s>(
        &'s self,
        channel: &'static str,
        payload: &'s str,
    ) -> impl Iterator<Item = RespValue> + 's {
        let by_name = self.channels.iter().filter(move |name| name.as_slice() == channel.as_bytes());
        let by_name = by_name.map(move |_| ["message", channel, payload].map(RespValue::text).to_vec());
        let by_pattern = self.patterns.iter().filter(move |pattern| fits(pattern, channel.as_bytes()));
        let by_pattern = by_pattern.map(move |pattern| {
            let texts = [channel, payload].map(RespValue::text);
            [RespValue::text("pmessage"), RespValue::Bytes(pattern.clone())].into_iter().chain(texts).collect()
        });
        by_name.chain(by_pattern).map(RespValue::Push)
    }
}

fn change(kind: &'static str, name: Option<&[u8]>, count: usize) -> RespValue {
    let name = name.map_or(RespValue::NoText, |name| RespValue::Bytes(name.to_vec()));
    RespValue::Push(vec![RespValue::text(kind), name, RespValue::Number(i64::try_from(count).unwrap_or_default())])
}

/// Whether a text fits one of Redis' patterns: `*`, `?`, `[a-z]`, `[^a]`, and a backslash before what is meant as it
/// is. Only the last star is gone back to, so that the work is at most one length times the other.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while place < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at + 1, place));
            at += 1;
        } else if let Some(length) = pattern.get(at..).and_then(|rest| one_fits(rest, text[place])) {
            at += length;
            place += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            (at, place) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern[at.min(pattern.len())..].iter().all(|byte| *byte == b'*')
}

/// How much of the pattern takes this one byte, if it does.
fn one_fits(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', meant, ..] => (meant == byte).then_some(2),
        [b'[', ref class @ ..] => {
            let (is_in, length) = class_has(class, byte);
            is_in.then_some(1 + length)
        }
        [plain, ..] => (plain == byte).then_some(1),
    }
}

/// Whether a class has this byte, and the class' length with its bracket. Without one it goes to the end.
fn class_has(class: &[u8], byte: u8) -> (bool, usize) {
    let is_not = class.first() == Some(&b'^');
    let (mut at, mut found) = (usize::from(is_not), false);
    loop {
        match class.get(at..).unwrap_or_default() {
            [] => return (found != is_not, at.min(class.len())),
            [b']', ..] => return (found != is_not, at + 1),
            [b'\\', meant, ..] => {
                found |= *meant == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                at += 3;
            }
            [one, ..] => {
                found |= *one == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_those_of_redis() {
        let cases = [
            ("*", "+slave", true),
            ("[-+]sdown", "+sdown", true),
            ("[-+]sdown", "-sdown", true),
            ("[-+]sdown", "_sdown", false),
            ("[^-]sdown", "+sdown", true),
            ("[^-]sdown", "-sdown", false),
            ("+s*e", "+slave", true),
            ("+s*ve*", "+slave", true),
            ("+s?ave", "+slave", true),
            ("+slave", "+slave-reconf-done", false),
            ("\\*", "+", false),
            ("\\*", "*", true),
            ("[a-c]", "b", true),
            ("[c-a]", "b", true),
            ("[\\]]", "]", true),
            ("[ab", "a", true),
            ("", "", true),
            ("", "a", false),
            ("a*", "", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn subscriptions_of_one_client_end_somewhere() {
        let mut subscriptions = Subscriptions::default();
        let names: Vec<_> = (0..MOST + 2).map(|number| number.to_string().into_bytes()).collect();
        let replies = subscriptions.add(By::Pattern, &names);
        let refused = |reply: &&RespValue| matches!(reply, RespValue::Error(_));
        assert_eq!((replies.iter().filter(refused).count(), subscriptions.count()), (2, MOST));
        assert_eq!(subscriptions.remove(By::Pattern, &[]).len(), MOST);
        let long = subscriptions.add(By::Channel, &[vec![b'x'; LONGEST + 1]]);
        assert!(matches!(long[..], [RespValue::Error(_)]) && subscriptions.count() == 0);
    }

    proptest! {
        #[test]
        fn any_pattern_is_borne(pattern in proptest::collection::vec(any::<u8>(), 0..60), text in "[a-e+-]{0,20}") {
            fits(&pattern, text.as_bytes());
        }

        #[test]
        fn stars_fit_like_their_expression(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn plainly(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern, text) {
                    ([], []) => true,
                    ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| plainly(rest, &text[skip..])),
                    ([one, rest @ ..], [byte, after @ ..]) => (*one == b'?' || one == byte) && plainly(rest, after),
                    _ => false,
                }
            }
            prop_assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), plainly(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
