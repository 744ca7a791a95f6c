//! What people and programs are told of a host's numbers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::words::record::Text;

/// How a host stands with the number of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Standing {
    /// It is on its way to one: what it waits for.
    Claiming {
        /// The last thing that stood against it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Text>,
    },
    /// It has one.
    Held {
        /// The number.
        number: u32,
        /// RFC 3339 time since when.
        since: Text,
    },
    /// Its number is another host's, and it has none until a person says so.
    Lost {
        /// The number.
        number: u32,
        /// Whose it is.
        to: Text,
    },
    /// An agent of this host's name lives on another machine.
    Refused {
        /// That machine.
        machine: Text,
    },
    /// A person has freed its number, and it claims none.
    Released,
    /// Whatever a newer agent says.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Standing {
    /// The number that the host has.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Held { number, .. } => Some(*number),
            _ => None,
        }
    }

    /// Whether somebody has to act.
    pub fn is_trouble(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Refused { .. })
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claiming { reason: None } => f.write_str("is claimed, and counts after 5 s without contradiction"),
            Self::Claiming { reason: Some(reason) } => write!(f, "is not claimed yet: {reason}"),
            Self::Held { number, since } => write!(f, "is {number}, since {since}"),
            Self::Lost { number, to } => {
                write!(f, "was {number}, which is {to}'s now: stop what runs by it, then `wharf ordinal --renumber`")
            }
            Self::Refused { machine } => {
                write!(f, "is refused: an agent of this name lives on another machine ({machine})")
            }
            Self::Released => f.write_str("was released, and is claimed again when the agent starts"),
            Self::Unknown => f.write_str("is not known"),
        }
    }
}

/// How a host stands, by role.
pub type Standings = BTreeMap<Text, Standing>;

/// The numbers that a host has.
pub fn numbers(standings: &Standings) -> BTreeMap<Text, u32> {
    standings.iter().filter_map(|(role, standing)| Some((role.clone(), standing.number()?))).collect()
}

/// `/run/wharf/ordinals.env`: the numbers that a host has, for units.
pub fn environment(standings: &Standings) -> String {
    let mut text = String::new();
    for (role, number) in numbers(standings) {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let name: String = role.chars().map(letter).collect();
        text.push_str(&format!("WHARF_ORDINAL_{name}={number}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_the_numbers_that_count() {
        let held = |number| Standing::Held { number, since: "2026-01-01T00:00:00Z".into() };
        let standings = Standings::from([
            ("nucleus".into(), held(2)),
            ("my-role_2".into(), held(11)),
            ("lost".into(), Standing::Lost { number: 3, to: "b".into() }),
            ("new".into(), Standing::Claiming { reason: None }),
        ]);
        assert_eq!(environment(&standings), "WHARF_ORDINAL_MY_ROLE_2=11\nWHARF_ORDINAL_NUCLEUS=2\n");
        assert_eq!(environment(&Standings::new()), "");
    }

    #[test]
    fn standings_are_read_as_they_are_written() {
        for standing in [
            Standing::Held { number: 2, since: "x".into() },
            Standing::Lost { number: 3, to: "b".into() },
            Standing::Claiming { reason: Some("x".into()) },
            Standing::Released,
        ] {
            let text = serde_json::to_string(&standing).expect("it encodes");
            assert_eq!(serde_json::from_str::<Standing>(&text).ok(), Some(standing), "{text}");
        }
        assert_eq!(serde_json::from_str::<Standing>(r#"{"state":"newer"}"#).ok(), Some(Standing::Unknown));
    }
}
