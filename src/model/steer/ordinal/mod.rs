//! A host's number among those of a role, decided: who may claim which, and who has to yield.
//!
//! ```text
//!           lowest free number, tentatively              5 s without contradiction
//!   none ───────────────────────────────────▶ tentative ──────────────────────────▶ held
//!     ▲                                           │                                  │ ▲
//!     └───────── a holder wrote over it ──────────┘     the key is gone, or spoiled, │ │ written again
//!                                                       or tentatively another's     └─┘
//!
//!   held ── the key is another's, and counts ──▶ lost, until a person says `--renumber`
//!   held ── the key says that it is released ──▶ none
//! ```
//!
//! A number is a key without a lease; each write of one is conditional on what was read. It outlives its host, whose
//! copy of it lies beside the store: in a store that went back holders write theirs again, while whoever is new there
//! waits. So a number that is in use is given away only while its holder sees nothing of it for 5 s.
//!
//! | file | decides |
//! |---|---|
//! | [`entry`] | how roles, keys and values are written |
//! | [`claim`] | what comes next, by what was read |
//! | [`told`] | what people and programs are told of it |

pub mod claim;
pub mod entry;
pub mod told;
