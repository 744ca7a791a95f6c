//! What is written, and as what: names, keys, zones, records, node records.

pub mod advertised;
pub mod key;
pub mod known;
pub mod name;
pub mod node;
pub mod ordinal;
pub mod place;
pub mod plain;
pub mod presence;
pub mod record;
pub mod site;
pub mod trouble;
pub mod zone;
