//! What a user may read and write: the permissions of all the user's roles in one.

use pintle_store_api::authpb::Permission;
use pintle_store_api::authpb::permission::Type;
use pintle_store_api::{KeyRange, authpb};

use super::key_set::KeySet;

/// Whether keys are looked at or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Merged once for each user and auth revision.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    read: KeySet,
    write: KeySet,
}

impl Permissions {
    pub(crate) fn merge<'a>(roles: impl Iterator<Item = &'a authpb::Role> + Clone) -> Self {
        let keys = |access| {
            let permissions = roles.clone().flat_map(|role| &role.key_permission);
            KeySet::union(permissions.filter(|one| gives(one, access)).map(range))
        };
        Self { read: keys(Access::Read), write: keys(Access::Write) }
    }

    pub(crate) fn allow(&self, access: Access, key: &[u8], range_end: &[u8]) -> bool {
        match access {
            Access::Read => self.read.covers(key, range_end),
            Access::Write => self.write.covers(key, range_end),
        }
    }
}

fn gives(permission: &Permission, access: Access) -> bool {
    match Type::try_from(permission.perm_type) {
        Ok(Type::Readwrite) => true,
        Ok(Type::Read) => access == Access::Read,
        Ok(Type::Write) => access == Access::Write,
        Err(_) => false,
    }
}

fn range(permission: &Permission) -> KeyRange {
    KeyRange::from_request(permission.key.clone(), permission.range_end.clone())
}

/// Whether a permission may be given on these keys: one key, a range that begins before it ends,
/// or all keys from one on.
pub(crate) fn is_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == [0] || key < range_end)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn permission(perm_type: Type, key: &'static str, range_end: &'static str) -> Permission {
        let perm_type = perm_type.into();
        Permission { perm_type, key: key.into(), range_end: range_end.into() }
    }

    fn role(key_permission: Vec<Permission>) -> authpb::Role {
        authpb::Role { name: "r".into(), key_permission }
    }

    #[test]
    fn roles_complete_each_other() {
        let reader = role(vec![permission(Type::Read, "a", "c")]);
        let both = role(vec![permission(Type::Readwrite, "c", "e")]);
        let writer = role(vec![permission(Type::Write, "x", "")]);
        let permissions = Permissions::merge([&reader, &both, &writer].into_iter());
        assert!(permissions.allow(Access::Read, b"a", b"e"));
        assert!(!permissions.allow(Access::Write, b"a", b"e"));
        assert!(permissions.allow(Access::Write, b"c", b"e"));
        assert!(permissions.allow(Access::Write, b"x", b""));
        assert!(!permissions.allow(Access::Read, b"x", b""));
    }

    #[test]
    fn an_unknown_type_gives_nothing() {
        let unknown = Permission { perm_type: 9, key: "a".into(), range_end: "b".into() };
        let permissions = Permissions::merge(std::iter::once(&role(vec![unknown])));
        assert!(!permissions.allow(Access::Read, b"a", b""));
        assert!(!permissions.allow(Access::Write, b"a", b""));
    }

    #[test]
    fn ranges_are_as_etcd_takes_them() {
        for (key, range_end, is) in [
            ("", "", false),
            ("", "\0", false),
            ("", "a", false),
            ("a", "", true),
            ("a", "b", true),
            ("a", "a", false),
            ("b", "a", false),
            ("a", "\0", true),
            ("\0", "\0", true),
        ] {
            assert_eq!(is_range(key.as_bytes(), range_end.as_bytes()), is, "{key:?} {range_end:?}");
        }
    }

    proptest! {
        /// A key is allowed if any permission of any role names it, whatever the others are.
        #[test]
        fn a_key_is_allowed_if_any_permission_names_it(
            roles in vec(vec((0i32..4, 0u8..8, 0u8..10), 0..5), 0..4),
            key in 0u8..9,
        ) {
            let text = |n: u8| vec![n + b'a'];
            let permission = |&(perm_type, key, end): &(i32, u8, u8)| Permission {
                perm_type,
                key: text(key).into(),
                range_end: match end {
                    8 => Vec::new(),
                    9 => vec![0],
                    _ => text(end),
                }
                .into(),
            };
            let roles: Vec<authpb::Role> =
                roles.iter().map(|one| role(one.iter().map(permission).collect())).collect();
            let merged = Permissions::merge(roles.iter());
            let key = text(key);
            for access in [Access::Read, Access::Write] {
                let named = roles.iter().flat_map(|role| &role.key_permission).any(|one| {
                    gives(one, access) && range(one).contains(&key)
                });
                prop_assert_eq!(merged.allow(access, &key, b""), named);
            }
        }
    }
}
