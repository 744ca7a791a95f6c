//! A person's word that a number is free.

use std::sync::Arc;

use super::desk::read_all;
use crate::model::steer::ordinal::entry::{Entry, key};
use crate::model::words::key::Prefix;
use crate::model::words::node::NodeRecord;
use crate::model::words::ordinal::{HIGHEST, RoleName, number};
use crate::model::words::record::Text;
use crate::store::{Commit, Condition, Item, Store, StoreError, Write};

/// Where numbers are.
#[derive(Clone, Debug)]
pub struct Release {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The root of the tree of records.
    pub prefix: Prefix,
    /// The role.
    pub role: RoleName,
    /// The agent of the host is known to have it. A node record tells that of others, some seconds late.
    pub lives: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// The number is free.
    Free(u32),
    /// It is free as soon as the agent that has it has seen that.
    Told(u32),
    /// The host has none.
    None,
}

impl Release {
    /// Frees the number of a host. An agent that has it is told first, so that nobody else takes it under its hands.
    pub async fn of(&self, node: &str) -> Result<Released, StoreError> {
        let most = 2 * HIGHEST as usize;
        loop {
            let below = self.prefix.ordinals(self.role.as_str());
            let (items, _) = read_all(&*self.store, &below, most).await?;
            let own = items.iter().find_map(|item| self.is_of(item, &below, node));
            let Some((number, revision, entry)) = own else { return Ok(Released::None) };
            let (nodes, _) = read_all(&*self.store, &self.prefix.nodes(), most).await?;
            let has_it = |item: &Item| {
                let record = NodeRecord::decode(&item.value).ok();
                record.is_some_and(|it| &*it.node == node && it.ordinals.get(self.role.as_str()) == Some(&number))
            };
            let lives = self.lives || nodes.iter().any(has_it);
            let key = key(&self.prefix, &self.role, number);
            let write = match lives {
                true => {
                    let value = Entry { released: true, ..entry }.encode();
                    Write::Put { key: key.clone(), value: value.into(), lease: 0 }
                }
                false => Write::Delete(key.clone()),
            };
            // Whoever changed it meanwhile is looked at.
            if let Commit::Done(_) = self.store.commit(&[Condition::Unchanged(key, revision)], &[write]).await? {
                return Ok(if lives { Released::Told(number) } else { Released::Free(number) });
            }
        }
    }

    fn is_of(&self, item: &Item, below: &str, node: &str) -> Option<(u32, i64, Entry)> {
        let number = number(item.key.strip_prefix(below)?)?;
        let entry = Entry::decode(&item.value).filter(|entry| entry.node == Text::from(node))?;
        Some((number, item.revision, entry))
    }
}
