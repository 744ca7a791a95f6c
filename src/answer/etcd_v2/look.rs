//! Looks at what the store holds where a request is to do something, all of it at one revision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use crate::model::etcd_v2::plan::{self, MOST};
use crate::model::etcd_v2::sight::{Held, Life, Sight, Step};
use crate::model::etcd_v2::tree::{TooMuch, Tree, take_all};
use crate::model::etcd_v2::{Change, Deed, NodePath, Places, Scope, whose};
use crate::store::{Item, LeaseId, Page, Revision, Store, StoreError, lease_as_told};

/// Leases that are asked after at a time.
const AT_A_TIME: usize = 32;

/// What a request needs to know besides the node and the directories above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Where the path ends, if there is no such node.
    Missing,
    /// Nothing.
    Nothing,
    /// Whether something below is kept from others.
    Kept,
    /// That, and all that lies below.
    Below,
}

impl Need {
    pub(super) fn of(change: &Change) -> Self {
        match change.deed {
            Deed::Create(_) | Deed::Append(_) => Self::Nothing,
            Deed::Set(_) if !change.refresh => Self::Nothing,
            Deed::Set(_) | Deed::Swap(..) | Deed::CompareDelete(_) => Self::Missing,
            Deed::Delete { recursive: false, .. } => Self::Missing,
            Deed::Delete { .. } => Self::Kept,
            Deed::Update(_) => Self::Below,
        }
    }
}

/// Looks. Clones look at the same store.
#[derive(Clone, Debug)]
pub(super) struct Looker {
    pub(super) store: Arc<dyn Store>,
    pub(super) places: Arc<Places>,
    /// What is served: its user may read nothing else.
    pub(super) scope: Scope,
}

pub(super) fn held(item: Item) -> Held {
    let Item { key, value, lease, revision, created } = item;
    Held { key, value: value.to_vec(), lease, created, modified: revision }
}

impl Looker {
    /// What there is at a path and above it.
    pub(super) async fn sight(&self, path: &NodePath, need: Need) -> Result<Sight, StoreError> {
        let mut paths = path.ancestors();
        paths.push(path.clone());
        let files = paths.iter().filter(|path| self.scope.is_within(path)).map(ToString::to_string);
        let keys: Vec<String> = files.chain(paths.iter().map(|path| self.places.mark(path))).collect();
        let Page { items, revision, .. } = self.store.get(&keys).await?;
        let mut found: BTreeMap<String, Item> = items.into_iter().map(|item| (item.key.clone(), item)).collect();
        let mut steps: Vec<Step> = paths.into_iter().map(|path| self.step(path, &mut found)).collect();
        let own = steps.pop().expect("the path itself is among them");
        let mut sight = Sight {
            revision,
            above: steps,
            own,
            first_child: None,
            missing: None,
            lives: BTreeMap::new(),
            is_locked: false,
            kept_below: None,
            below: Vec::new(),
        };
        self.complete(&mut sight, need).await?;
        Ok(sight)
    }

    fn step(&self, path: NodePath, found: &mut BTreeMap<String, Item>) -> Step {
        let can_be_file = self.scope.is_within(&path);
        let file = if can_be_file { found.remove(path.as_str()).map(held) } else { None };
        let mark = found.remove(&self.places.mark(&path)).map(held);
        Step { path, file, mark, can_be_file }
    }

    async fn complete(&self, sight: &mut Sight, need: Need) -> Result<(), StoreError> {
        if sight.own.file.is_none() {
            sight.first_child = self.first_child(&sight.own.path, sight.revision).await?;
        }
        if need != Need::Nothing && !sight.is_there() {
            sight.missing = self.missing(sight).await?;
        }
        if matches!(need, Need::Kept | Need::Below) && sight.is_dir() && !sight.own.path.is_root() {
            self.look_below(sight, need).await?;
        }
        sight.is_locked = self.is_locked(sight).await?;
        sight.lives = self.lives(plan::leases(sight)).await?;
        Ok(())
    }

    /// The revision that made the first of what lies below.
    async fn first_child(&self, path: &NodePath, at: Revision) -> Result<Option<Revision>, StoreError> {
        for below in [path.below(), self.places.marks_below(path)] {
            if let Some(item) = self.store.first(&below, Some(at)).await? {
                return Ok(Some(item.created));
            }
        }
        Ok(None)
    }

    /// The first part of the path that is not there: the deepest directory that is there has all above it.
    async fn missing(&self, sight: &Sight) -> Result<Option<NodePath>, StoreError> {
        let mut missing = sight.own.path.clone();
        for step in sight.above.iter().rev() {
            // What is above all that is served is not looked at.
            let is_outside = self.scope.root_of(&step.path).is_none();
            let is_there = is_outside || step.file.is_some() || step.mark.is_some();
            if is_there || self.first_child(&step.path, sight.revision).await?.is_some() {
                break;
            }
            missing = step.path.clone();
        }
        Ok(Some(missing))
    }

    /// Looks for what is an agent's or a lock's, and remembers what is to move to another lease.
    async fn look_below(&self, sight: &mut Sight, need: Need) -> Result<(), StoreError> {
        let (path, at) = (sight.own.path.clone(), sight.revision);
        let locked = self.locks_below(&path, at).await?;
        let mut pages = Pages::new(&*self.store, path.below(), at);
        while let Some(items) = pages.next().await? {
            for item in items {
                let Some(own) = NodePath::of_key(&item.key) else { continue };
                let is_locked = item.lease != 0 && locked.contains(&(own.clone(), item.lease));
                let whose = whose::owner(&item.value).or(is_locked.then(|| "what a lock is held by".to_owned()));
                if let Some(whose) = whose {
                    sight.kept_below = Some((own, whose));
                    return Ok(());
                }
                if need == Need::Below && sight.below.len() <= MOST {
                    sight.below.push(held(item));
                }
            }
        }
        if need == Need::Below {
            let mut marks = Pages::new(&*self.store, self.places.marks_below(&path), at);
            while let Some(items) = marks.next().await? {
                let room = (MOST + 1).saturating_sub(sight.below.len());
                sight.below.extend(items.into_iter().take(room).map(held));
            }
        }
        Ok(())
    }

    /// The keys below a path by which locks are held, with the leases that hold them.
    async fn locks_below(&self, path: &NodePath, at: Revision) -> Result<BTreeSet<(NodePath, LeaseId)>, StoreError> {
        let mut locked = BTreeSet::new();
        let mut pages = Pages::new(&*self.store, self.places.locks_below(path), at);
        while let Some(items) = pages.next().await? {
            locked.extend(items.iter().filter_map(|item| self.places.lock_of_place(&item.key)));
        }
        Ok(locked)
    }

    async fn is_locked(&self, sight: &Sight) -> Result<bool, StoreError> {
        let Some(file) = sight.own.file.as_ref().filter(|file| file.lease != 0) else { return Ok(false) };
        let place = self.places.place_of_lock(&sight.own.path, file.lease);
        let first = self.store.first(&place, Some(sight.revision)).await?;
        Ok(first.is_some_and(|item| item.key == place))
    }

    /// What becomes of leases; of those that are gone nothing.
    pub(super) async fn lives(&self, leases: BTreeMap<LeaseId, bool>) -> Result<BTreeMap<LeaseId, Life>, StoreError> {
        let looks = leases.into_iter().map(|(lease, with_keys)| self.life(lease, with_keys).boxed());
        let lives: Vec<_> = stream::iter(looks).buffer_unordered(AT_A_TIME).try_collect().await?;
        Ok(lives.into_iter().flatten().collect())
    }

    async fn life(&self, lease: LeaseId, with_keys: bool) -> Result<Option<(LeaseId, Life)>, StoreError> {
        let told = if with_keys {
            lease_as_told(&*self.store, lease).await
        } else {
            self.store.lease_times(lease).await.map(|info| (info, false))
        };
        match told {
            Ok((info, are_told)) => {
                let is_alone = are_told && info.keys.len() == 1;
                Ok(Some((lease, Life { granted: info.granted, left: info.left, is_alone })))
            }
            Err(StoreError::NoLease(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What lies below a directory.
    pub(super) async fn tree(&self, sight: &Sight, recursive: bool) -> Result<Result<Tree, TooMuch>, StoreError> {
        let path = &sight.own.path;
        let mut tree = Tree::new(path.clone(), recursive);
        for below in [path.below(), self.places.marks_below(path)] {
            let mut pages = Pages::new(&*self.store, below.clone(), sight.revision);
            while let Some(items) = pages.next().await? {
                if let Some(skip) = items.last().and_then(|item| tree.skip(&below, &item.key)) {
                    pages.skip_to(skip);
                }
                if take_all(&mut tree, &self.places, items.into_iter().map(held).collect()).is_err() {
                    return Ok(Err(TooMuch));
                }
            }
        }
        Ok(Ok(tree))
    }
}

/// The pages of a read.
struct Pages<'a> {
    store: &'a dyn Store,
    below: String,
    at: Revision,
    after: Option<String>,
    is_over: bool,
}

impl<'a> Pages<'a> {
    fn new(store: &'a dyn Store, below: String, at: Revision) -> Self {
        Self { store, below, at, after: None, is_over: false }
    }

    async fn next(&mut self) -> Result<Option<Vec<Item>>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        let page = self.store.read(&self.below, self.after.as_deref(), Some(self.at)).await?;
        self.is_over = !page.more;
        self.after = page.items.last().map(|item| item.key.clone());
        Ok(Some(page.items))
    }

    fn skip_to(&mut self, after: String) {
        self.after = Some(after);
    }
}
