//! What one process of ambassadors leaves to the next: which sockets belong together, and the bytes that were read from
//! one and not yet written to the other.
//!
//! Sockets are told apart by their cookies, which the kernel gives once and no two of a boot share. What is written is
//! a length, so much JSON, and then the bytes of all pairs in their order.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::redis::Identity;
use crate::model::words::record::Text;

/// Changed when an older process would misread it; what another form holds is not taken up.
const FORM: u32 = 1;
const HEAD: usize = size_of::<u64>();

/// Everything that is left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    form: u32,
    /// Sockets that listen.
    pub(crate) listeners: Vec<ListenerLeft>,
    /// Connections.
    pub(crate) pairs: Vec<PairLeft>,
}

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenerLeft {
    /// Which one.
    pub(crate) cookie: u64,
    /// The address as the table has it.
    pub(crate) at: SocketAddr,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PairLeft {
    /// The name of its table.
    pub(crate) proxy: String,
    /// The client's side.
    pub(crate) client: u64,
    /// The server's side; none where it still waits for one.
    pub(crate) server: Option<ServerLeft>,
    /// From the client to the server.
    pub(crate) up: FlowLeft,
    /// From the server to the client.
    pub(crate) down: FlowLeft,
    /// As whom a session of Redis speaks, where it is moved over a switch.
    #[serde(default)]
    pub(crate) redis: Option<Identity>,
}

/// The server's side of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerLeft {
    /// Which socket.
    pub(crate) cookie: u64,
    /// Where it runs to.
    pub(crate) address: SocketAddr,
    /// Whose record it was found by.
    pub(crate) owner: Option<Text>,
}

/// One direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlowLeft {
    /// Its end has been passed on.
    pub(crate) is_over: bool,
    length: usize,
    /// What was read and not yet written.
    #[serde(skip)]
    pub(crate) rest: Vec<u8>,
}

impl FlowLeft {
    /// A direction that holds these bytes.
    pub(crate) fn new(rest: Vec<u8>, is_over: bool) -> Self {
        Self { is_over, length: rest.len(), rest }
    }
}

impl Manifest {
    /// What is to be left.
    pub(crate) fn new(listeners: Vec<ListenerLeft>, pairs: Vec<PairLeft>) -> Self {
        Self { form: FORM, listeners, pairs }
    }

    /// As it is written.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        for pair in &self.pairs {
            bytes.extend(&pair.up.rest);
            bytes.extend(&pair.down.rest);
        }
        bytes
    }

    /// What was written; none where that is something else, or not whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let length = usize::try_from(u64::from_le_bytes(*head)).ok()?;
        let (json, mut rest) = rest.split_at_checked(length)?;
        let mut manifest: Self = serde_json::from_slice(json).ok().filter(|read: &Self| read.form == FORM)?;
        for pair in &mut manifest.pairs {
            for flow in [&mut pair.up, &mut pair.down] {
                let (own, after) = rest.split_at_checked(flow.length)?;
                flow.rest = own.to_vec();
                rest = after;
            }
        }
        rest.is_empty().then_some(manifest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest(up: Vec<u8>, down: Vec<u8>) -> Manifest {
        let at: SocketAddr = "127.0.0.1:5432".parse().expect("an address");
        let server = ServerLeft { cookie: 3, address: at, owner: Some("o-1".into()) };
        let pair = |up, down| PairLeft {
            proxy: "db".to_owned(),
            client: 2,
            server: Some(server.clone()),
            up: FlowLeft::new(up, true),
            down: FlowLeft::new(down, false),
            redis: Some(Identity::default()),
        };
        let waits = PairLeft { server: None, ..pair(Vec::new(), Vec::new()) };
        Manifest::new(
            vec![ListenerLeft { cookie: 1, at }],
            vec![pair(up, down), waits, pair(b"x".to_vec(), Vec::new())],
        )
    }

    #[test]
    fn half_of_it_or_another_form_is_not_taken_up() {
        let whole = manifest(b"abc".to_vec(), b"de".to_vec()).encode();
        assert!((0..whole.len()).all(|length| Manifest::decode(&whole[..length]).is_none()));
        assert_eq!(Manifest::decode(&[whole, vec![0]].concat()), None);
        let newer = Manifest { form: FORM + 1, ..manifest(Vec::new(), Vec::new()) };
        assert_eq!(Manifest::decode(&newer.encode()), None);
    }

    proptest! {
        #[test]
        fn what_is_left_is_taken_up_byte_for_byte(up: Vec<u8>, down: Vec<u8>) {
            let left = manifest(up, down);
            prop_assert_eq!(Manifest::decode(&left.encode()), Some(left));
        }

        #[test]
        fn anything_else_is_nothing(bytes: Vec<u8>) {
            prop_assert_eq!(Manifest::decode(&bytes), None);
        }
    }
}
