//! A person's word that this host shall have a number.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::desk::Desk;
use crate::model::steer::ordinal::told::Standing;
use crate::store::StoreError;

/// So long a store is asked that does not answer,
const DEAF: Duration = Duration::from_secs(10);
/// and so often.
const AGAIN: Duration = Duration::from_millis(200);

/// Claims a number until it counts, or something stands against it. One that became another host's is given up only
/// where that is asked for (`renumber`), and `note` is told of it.
///
/// # Errors
/// When the store cannot be asked.
pub async fn claim(desk: &mut Desk, renumber: bool, mut note: impl FnMut(String)) -> Result<Standing, StoreError> {
    let mut heard = Instant::now();
    loop {
        let looked = match desk.look().await {
            Ok(looked) => looked,
            // A hundred hosts ask at once, or the store is just restored: it is asked again for a while.
            Err(StoreError::Away { .. } | StoreError::Rewound) if heard.elapsed() < DEAF => {
                sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        heard = Instant::now();
        match &looked.standing {
            Standing::Lost { number, to } if renumber => {
                note(format!("{} {number} is {to}'s: a new number is claimed", desk.role()));
                desk.forget().await;
                continue;
            }
            Standing::Claiming { reason: None } | Standing::Unknown => {}
            _ => return Ok(looked.standing),
        }
        desk.wait(&looked).await;
    }
}
