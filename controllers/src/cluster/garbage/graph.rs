//! Who owns whom: the metadata of all objects, as far as deletion depends on it. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::{BTreeSet, HashMap};

/// The finalizer of an object that waits for its dependents to go.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object that waits for its dependents to be let go.
pub(super) const ORPHAN: &str = "orphan";

/// The identity of an object.
pub(super) type Uid = String;

/// An object, as far as the collector cares.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Object {
    /// The resource that it is one of: `pods`, `deployments.apps`.
    pub(super) resource: String,
    /// "" if it is cluster-scoped.
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) resource_version: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) finalizers: Vec<String>,
    pub(super) deleting: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Graph {
    objects: HashMap<Uid, Object>,
    /// By the UID of the owner, whether that exists or not.
    dependents: HashMap<Uid, BTreeSet<Uid>>,
}

impl Object {
    pub(super) fn new(resource: String, meta: ObjectMeta) -> Self {
        Self {
            resource,
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            owners: meta.owner_references.unwrap_or_default(),
            finalizers: meta.finalizers.unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    pub(super) fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == name)
    }

    /// Whether it is being deleted and waits for its dependents.
    pub(super) fn waits_for_dependents(&self) -> bool {
        self.deleting && self.has_finalizer(FOREGROUND)
    }

    /// Whether it is being deleted and wants its dependents to be let go.
    pub(super) fn orphans_dependents(&self) -> bool {
        self.deleting && self.has_finalizer(ORPHAN)
    }

    /// Whether its deletion must wait for this dependent.
    pub(super) fn is_blocked_by(&self, dependent: &Self) -> bool {
        dependent.owners.iter().any(|o| o.uid == self.uid && o.block_owner_deletion == Some(true))
    }
}

impl Graph {
    /// Takes in an object; returns the objects to be looked at now.
    pub(super) fn observe(&mut self, object: Object) -> BTreeSet<Uid> {
        let uid = object.uid.clone();
        let old = self.objects.get(&uid).cloned();
        if let Some(old) = &old {
            self.unlink(old);
        }
        for owner in &object.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        self.objects.insert(uid.clone(), object);
        self.affected(&uid, old.as_ref())
    }

    /// Forgets an object that is gone; returns the objects to be looked at now.
    pub(super) fn forget(&mut self, uid: &str) -> BTreeSet<Uid> {
        let Some(object) = self.objects.remove(uid) else { return BTreeSet::new() };
        self.unlink(&object);
        let mut affected = self.dependents.get(uid).cloned().unwrap_or_default();
        affected.extend(self.waiting_owners(&object));
        affected
    }

    pub(super) fn get(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    /// The objects that refer to `uid` as an owner.
    pub(super) fn dependents(&self, uid: &str) -> impl Iterator<Item = &Object> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.objects.get(uid))
    }

    /// All objects that have an owner or are being deleted.
    pub(super) fn of_interest(&self) -> Vec<Uid> {
        let of_interest = self.objects.values().filter(|o| o.deleting || !o.owners.is_empty());
        of_interest.map(|object| object.uid.clone()).collect()
    }

    fn unlink(&mut self, object: &Object) {
        for owner in &object.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&object.uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    fn affected(&self, uid: &str, old: Option<&Object>) -> BTreeSet<Uid> {
        let Some(new) = self.objects.get(uid) else { return BTreeSet::new() };
        let mut affected = BTreeSet::new();
        let missing = |owner: &OwnerReference| {
            self.objects.get(&owner.uid).is_none_or(Object::waits_for_dependents)
        };
        let owners_changed = old.is_none_or(|old| old.owners != new.owners);
        if owners_changed && new.owners.iter().any(missing) {
            affected.insert(new.uid.clone());
        }
        if let Some(old) = old.filter(|_| owners_changed) {
            affected.extend(self.waiting_owners(old));
        }
        if new.orphans_dependents() {
            affected.insert(new.uid.clone());
        }
        if new.waits_for_dependents() && !old.is_some_and(Object::waits_for_dependents) {
            affected.insert(new.uid.clone());
            affected.extend(self.dependents(uid).map(|dependent| dependent.uid.clone()));
        }
        affected
    }

    /// Owners of the object that may have waited for nobody else.
    fn waiting_owners(&self, object: &Object) -> Vec<Uid> {
        let owners = object.owners.iter().filter_map(|owner| self.objects.get(&owner.uid));
        owners.filter(|owner| owner.waits_for_dependents()).map(|owner| owner.uid.clone()).collect()
    }
}
