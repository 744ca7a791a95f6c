//! A ZooKeeper ensemble as its cell sees it: who is a member, who of them serves, when all may begin.
//!
//! A member serves when `srvr` tells its probe leader, follower or observer, which its record has as its role. One that
//! stands alone has none: where the service has other members it has not joined, and is none that clients are sent to.
//!
//! | file | says |
//! |---|---|
//! | [`cell`] | who is a member, in which order, and who serves |
//! | [`barrier`] | when enough of them do |
//! | [`exhibitor`] | what clients of Exhibitor's API are told |

pub mod barrier;
pub mod cell;
pub mod exhibitor;
