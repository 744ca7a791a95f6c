//! A reply that may begin with any of its answers: the same bytes, cut and joined elsewhere.
//!
//! It can be turned when its answers are of one name and one type and none of them points into another one. Names of
//! the glue may be pointers into the answers, such as to an SRV's target: these are set right. Answers that stand in
//! the order of their priorities are turned among those of one priority.

/// The pointer to the question's name, which is the owner of every answer.
const OWNER: [u8; 2] = [0xc0, 12];
/// Type, class, TTL and length of a record.
const FIXED: usize = 10;
const A: u16 = 1;
const CNAME: u16 = 5;
const HINFO: u16 = 13;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const OPT: u16 = 41;

/// Where a reply may be cut.
#[derive(Debug)]
pub(super) struct Wheel {
    /// Where each answer begins, and where the last one ends.
    starts: Box<[u16]>,
    /// Behind the answers, the pointers that lead into them: where each stands, and where it leads.
    pointers: Box<[(u16, u16)]>,
    /// The first answer of each class, and the one behind its last: among themselves these are turned.
    classes: Box<[(u16, u16)]>,
    turns: usize,
}

/// Classes of different sizes come around together after so many turns at most; then they start anew.
const MOST_TURNS: usize = 5_040;

/// One record of a reply.
struct Found {
    kind: u16,
    data: usize,
    end: usize,
    /// The pointer that its owner ends in.
    owner: Option<(u16, u16)>,
}

impl Wheel {
    /// How to turn a reply whose question ends at `question`; `None` when it cannot be turned, although it would have
    /// to.
    pub(super) fn of(reply: &[u8], question: usize, in_order: bool) -> Option<Self> {
        let count = |at: usize| Some(usize::from(number(reply, at)?));
        let (answers, others) = (count(6)?, count(8)? + count(10)?);
        let asked = number(reply, question.checked_sub(4)?)?;
        let (mut starts, mut at) = (Vec::with_capacity(answers + 1), question);
        for _ in 0..answers {
            starts.push(u16::try_from(at).ok()?);
            at = plain_answer(reply, at, asked, answers == 1)?;
        }
        starts.push(u16::try_from(at).ok()?);
        let pointers =
            if answers > 1 { pointers_between(reply, at, others, &(starts[0]..*starts.last()?))? } else { vec![] };
        let classes = classes(reply, &starts, in_order);
        let turns = turns(&classes);
        Some(Self { starts: starts.into(), pointers: pointers.into(), classes: classes.into(), turns })
    }

    /// How many ways there are to say it.
    pub(super) fn turns(&self) -> usize {
        self.turns
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.pointers) + size_of_val(&*self.classes)
    }

    /// Adds the reply to `out` with the answer of this number first, in each class.
    pub(super) fn write(&self, reply: &[u8], turn: usize, out: &mut Vec<u8>) {
        let at_end = out.len();
        let (answers, others) = (usize::from(self.starts[0]), usize::from(self.starts[self.starts.len() - 1]));
        out.extend_from_slice(&reply[..answers]);
        for class in &self.classes {
            let [first, begin, end] = self.cut(*class, turn).map(usize::from);
            out.extend_from_slice(&reply[begin..end]);
            out.extend_from_slice(&reply[first..begin]);
        }
        out.extend_from_slice(&reply[others..]);
        for (at, target) in &self.pointers {
            let moved = self.moved(*target, turn);
            out[at_end + usize::from(*at)..][..2].copy_from_slice(&(0xc000 | moved).to_be_bytes());
        }
    }

    /// Where a class begins, where its answer that comes first in this turn does, and where it ends.
    fn cut(&self, (first, end): (u16, u16), turn: usize) -> [u16; 3] {
        let [first, end] = [first, end].map(usize::from);
        [first, first + turn % (end - first), end].map(|answer| self.starts[answer])
    }

    /// Where what stood at a place stands in a turn.
    fn moved(&self, target: u16, turn: usize) -> u16 {
        let class = self.classes.partition_point(|(_, end)| self.starts[usize::from(*end)] <= target);
        let Some(class) = self.classes.get(class) else { return target };
        let [first, begin, end] = self.cut(*class, turn);
        if target >= begin { target - (begin - first) } else { target + (end - begin) }
    }
}

/// Which answers are turned among themselves: all, or where they stand in order, those of one priority.
fn classes(reply: &[u8], starts: &[u16], in_order: bool) -> Vec<(u16, u16)> {
    let priority = |start: &u16| number(reply, usize::from(*start) + OWNER.len() + FIXED).filter(|_| in_order);
    let mut first = 0;
    let of_one = starts[..starts.len() - 1].chunk_by(|one, next| priority(one) == priority(next));
    let class = |answers: &[u16]| {
        let begin = first;
        first += u16::try_from(answers.len()).ok()?;
        Some((begin, first))
    };
    of_one.map_while(class).collect()
}

/// After how many turns every class is back where it began.
fn turns(classes: &[(u16, u16)]) -> usize {
    let sizes = classes.iter().map(|(first, end)| usize::from(end - first));
    sizes.fold(1, |turns, size| {
        let common = turns / divisor(turns, size) * size;
        if common <= MOST_TURNS { common } else { turns.max(size) }
    })
}

fn divisor(one: usize, other: usize) -> usize {
    if other == 0 { one } else { divisor(other, one % other) }
}

/// Where an answer ends that may stand in any place, or in this one if it is the only one.
fn plain_answer(reply: &[u8], at: usize, asked: u16, alone: bool) -> Option<usize> {
    let Found { kind, data, end, .. } = record(reply, at)?;
    let plain = match kind {
        A | AAAA | TXT => true,
        // Never compressed (RFC 2782), unlike other names in data.
        SRV => matches!(name(reply, data + 6)?, (past, None) if past == end),
        _ => alone,
    };
    // An alias is one of several, perhaps: another one each time.
    let is_asked = kind == asked || kind == HINFO;
    (plain && is_asked && reply.get(at..at + 2)? == OWNER).then_some(end)
}

/// The pointers of `count` records from `at` on that lead into a range; `None` when there may be others.
fn pointers_between(
    reply: &[u8],
    mut at: usize,
    count: usize,
    range: &std::ops::Range<u16>,
) -> Option<Vec<(u16, u16)>> {
    let mut pointers = Vec::new();
    for _ in 0..count {
        let Found { kind, data, end, owner } = record(reply, at)?;
        pointers.extend(owner);
        match kind {
            A | AAAA | OPT => {}
            CNAME => pointers.extend(name(reply, data)?.1),
            _ => return None,
        }
        at = end;
    }
    pointers.retain(|(_, target)| range.contains(target));
    Some(pointers)
}

fn record(reply: &[u8], at: usize) -> Option<Found> {
    let (fixed, owner) = name(reply, at)?;
    let kind = number(reply, fixed)?;
    let length = usize::from(number(reply, fixed + 8)?);
    let data = fixed + FIXED;
    let end = data + length;
    (end <= reply.len()).then_some(Found { kind, data, end, owner })
}

/// Where a name ends, and the pointer that it ends in: where it stands and where it leads.
fn name(reply: &[u8], mut at: usize) -> Option<(usize, Option<(u16, u16)>)> {
    loop {
        match *reply.get(at)? {
            0 => return Some((at + 1, None)),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some((at + 2, Some((u16::try_from(at).ok()?, number(reply, at)? & 0x3fff)))),
            _ => return None,
        }
    }
}

fn number(reply: &[u8], at: usize) -> Option<u16> {
    let bytes = reply.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use hickory_server::net::xfer::Protocol;
    use hickory_server::proto::op::{Message, MessageType, Metadata, OpCode, Query, ResponseCode};
    use hickory_server::proto::rr::rdata::{CNAME as Alias, MX, SRV as Service, TXT as Text};
    use hickory_server::proto::rr::{Name, RData, Record, RecordType};
    use hickory_server::server::{Request, ResponseHandler};

    use super::*;
    use crate::answer::dns::message::{Draft, Written};
    use crate::answer::dns::packet::question_end;
    use crate::catalog::dns::Answer;

    fn named(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn saying(data: impl Iterator<Item = RData>) -> Answer {
        let owned = |data| Record::from_rdata(named("web.services.internal."), 5, data);
        Answer { answers: data.map(owned).collect(), ..Answer::empty(ResponseCode::NoError) }
    }

    fn service(number: usize) -> RData {
        RData::SRV(Service::new(10, 33, 80, named(&format!("core-{number}.web.services.internal."))))
    }

    fn address(number: usize) -> RData {
        RData::A(std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(number).expect("small")).into())
    }

    /// The reply with this answer, as it is sent.
    fn written(kind: RecordType, answer: &Answer) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(named("web.services.internal."), kind));
        let client = ([127, 0, 0, 1], 53_000).into();
        let request =
            Request::from_bytes(message.to_vec().expect("written"), client, Protocol::Tcp).expect("a request");
        let metadata = Metadata::response_from_request(&request.metadata);
        let draft = Draft { metadata, queries: &request.queries, answer, edns: None };
        let reply = Written::reply_to(&request);
        let sending = reply.clone().send_response(draft.message(draft.all())).now_or_never();
        sending.expect("nothing is waited for").expect("sent");
        reply.take().expect("written")
    }

    /// How hickory reads each turn of a reply; none when it cannot be turned.
    fn turns(kind: RecordType, answer: &Answer) -> Option<Vec<Message>> {
        let reply = written(kind, answer);
        let wheel = Wheel::of(&reply, question_end(&reply).expect("a question"), answer.in_order)?;
        let turn = |turn| {
            let mut out = Vec::new();
            wheel.write(&reply, turn, &mut out);
            assert_eq!(out.len(), reply.len());
            Message::from_vec(&out).expect("a message")
        };
        Some((0..wheel.turns()).map(turn).collect())
    }

    #[test]
    fn each_answer_comes_first_once_and_glue_stays_with_its_target() {
        for many in [1, 2, 3, 15, 40] {
            let mut answer = saying((0..many).map(service));
            for number in 0..many {
                let target = named(&format!("core-{number}.web.services.internal."));
                answer.additional.push(Record::from_rdata(target, 5, address(number)));
            }
            let turned = turns(RecordType::SRV, &answer).expect("it can be turned");
            assert_eq!(turned.len(), many);
            for (turn, read) in turned.iter().enumerate() {
                let mut wanted = answer.answers.clone();
                wanted.rotate_left(turn);
                assert_eq!((&read.answers, &read.additionals), (&wanted, &answer.additional));
            }
        }
    }

    #[test]
    fn answers_in_order_turn_among_those_of_one_priority() {
        let of = |(number, priority): (usize, u16)| {
            RData::SRV(Service::new(priority, 33, 80, named(&format!("core-{number}.web.services.internal."))))
        };
        for sizes in [&[1][..], &[2, 3], &[1, 1, 4], &[5, 7, 9, 11]] {
            let priorities = sizes.iter().zip(10..).flat_map(|(size, priority)| vec![priority; *size]);
            let mut answer = Answer { in_order: true, ..saying(priorities.enumerate().map(of)) };
            for number in 0..answer.answers.len() {
                let target = named(&format!("core-{number}.web.services.internal."));
                answer.additional.push(Record::from_rdata(target, 5, address(number)));
            }
            for (turn, read) in turns(RecordType::SRV, &answer).expect("it can be turned").iter().enumerate() {
                let mut wanted = answer.answers.clone();
                let mut rest = &mut *wanted;
                for size in sizes {
                    let (class, others) = rest.split_at_mut(*size);
                    class.rotate_left(turn % size);
                    rest = others;
                }
                assert_eq!((&read.answers, &read.additionals), (&wanted, &answer.additional), "{sizes:?} {turn}");
            }
        }
        assert_eq!(super::turns(&[(0, 2), (2, 5)]), 6);
        assert_eq!(super::turns(&[(0, 63), (63, 127), (127, 200)]), 4_032, "not all at once, but each in its turn");
    }

    #[test]
    fn addresses_and_texts_turn() {
        let text = |number: usize| RData::TXT(Text::new(vec!["x".repeat(number + 1)]));
        for (kind, data) in [(RecordType::A, address as fn(usize) -> RData), (RecordType::TXT, text)] {
            let turned = turns(kind, &saying((0..40).map(data))).expect("it can be turned");
            let firsts: Vec<_> = turned.iter().map(|read| read.answers[0].data.clone()).collect();
            assert_eq!(firsts, (0..40).map(data).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_points_within_the_answers_is_not_turned() {
        let mail = |number: usize| RData::MX(MX::new(1, named(&format!("core-{number}.mail.example."))));
        let lengths = |kind, answer| turns(kind, &answer).map(|turned| turned.len());
        assert_eq!(lengths(RecordType::MX, saying([mail(1)].into_iter())), Some(1));
        assert_eq!(lengths(RecordType::MX, saying([mail(1), mail(2)].into_iter())), None);
        let alias = RData::CNAME(Alias(named("other.services.internal.")));
        assert_eq!(lengths(RecordType::A, saying([alias].into_iter())), None, "the next time it may be another alias");
        assert_eq!(lengths(RecordType::A, saying(std::iter::empty())), Some(1), "no data is the same each time");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(reply in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), question in 0..64_usize, in_order: bool) {
            if let Some(wheel) = Wheel::of(&reply, question, in_order) {
                (0..wheel.turns()).for_each(|turn| wheel.write(&reply, turn, &mut Vec::new()));
            }
        }
    }
}
