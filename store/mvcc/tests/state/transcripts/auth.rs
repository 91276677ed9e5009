//! Users, roles and permissions in transcripts.
//!
//! `auth enable|disable`, `user add|delete|password|grant|revoke …`, `role add|delete|grant|revoke …`,
//! `login USER PREFIX`. `as WHO COMMAND` lets somebody else than the server do a command, where
//! WHO is `USER@REVISION` or `nobody`; `may WHO read KEYS` asks before a read; `auth-state` prints all.

use pintle_mvcc::{Auth, Reader};
use pintle_proto::raft::auth_command::Change;
use pintle_proto::raft::command::Kind;
use pintle_proto::raft::{AuthCommand, Authenticate, Caller};
use pintle_store_api::authpb::{Permission, UserAddOptions, permission::Type};
use pintle_store_api::pb;

use super::parse::{keys, number};
use super::print::text;

pub(super) fn server() -> Caller {
    Caller { server: true, ..Default::default() }
}

pub(super) fn caller(word: &str) -> Caller {
    match word.split_once('@') {
        None if word == "nobody" => Caller::default(),
        None => panic!("{word:?} is no caller"),
        Some((user, revision)) => {
            Caller { server: false, user: user.to_owned(), auth_revision: number(revision) as u64 }
        }
    }
}

pub(super) fn write<'a>(command: &str, mut words: impl Iterator<Item = &'a str>) -> Kind {
    let mut word = || match words.next() {
        Some("''") | None => String::new(),
        Some(word) => word.to_owned(),
    };
    let change = match command {
        "auth" => match word().as_str() {
            "enable" => Change::Enable(pb::AuthEnableRequest {}),
            "disable" => Change::Disable(pb::AuthDisableRequest {}),
            other => panic!("unknown auth command {other:?}"),
        },
        "login" => Change::Authenticate(Authenticate { user: word(), token_prefix: word() }),
        "user" => user(&word(), word),
        "role" => role(&word(), word),
        other => panic!("unknown command {other:?}"),
    };
    Kind::Auth(AuthCommand { change: Some(change) })
}

fn user(command: &str, mut word: impl FnMut() -> String) -> Change {
    let name = word();
    match command {
        "add" => {
            let hashed_password = word();
            let no_password = hashed_password == "no-password";
            Change::UserAdd(pb::AuthUserAddRequest {
                name,
                hashed_password,
                options: Some(UserAddOptions { no_password }),
                ..Default::default()
            })
        }
        "delete" => Change::UserDelete(pb::AuthUserDeleteRequest { name }),
        "password" => Change::UserChangePassword(pb::AuthUserChangePasswordRequest {
            name,
            hashed_password: word(),
            ..Default::default()
        }),
        "grant" => Change::UserGrantRole(pb::AuthUserGrantRoleRequest { user: name, role: word() }),
        "revoke" => Change::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name, role: word() }),
        other => panic!("unknown user command {other:?}"),
    }
}

fn role(command: &str, mut word: impl FnMut() -> String) -> Change {
    let role = word();
    match command {
        "add" => Change::RoleAdd(pb::AuthRoleAddRequest { name: role }),
        "delete" => Change::RoleDelete(pb::AuthRoleDeleteRequest { role }),
        "grant" => {
            let perm = match word().as_str() {
                "" => None,
                name => {
                    let perm_type = Type::from_str_name(&name.to_uppercase());
                    let (key, range_end) = keys(&word());
                    let perm_type = perm_type.expect("a type").into();
                    Some(Permission { perm_type, key, range_end })
                }
            };
            let name = role;
            Change::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name, perm })
        }
        "revoke" => {
            let (key, range_end) = keys(&word());
            Change::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest {
                role,
                key,
                range_end,
            })
        }
        other => panic!("unknown role command {other:?}"),
    }
}

pub(super) fn may(reader: &Reader, caller: Caller, range: &pb::RangeRequest) -> String {
    let caller = pintle_mvcc::Caller::from(Some(&caller));
    let allowed = reader.authorize(caller, |may| may.read(&range.key, &range.range_end));
    match allowed {
        Ok(_) => "allowed\n".to_owned(),
        Err(error) => format!("refused: {error}\n"),
    }
}

pub(super) fn state(auth: &Auth) -> String {
    let on = if auth.enabled() { "on" } else { "off" };
    let mut out = format!("authentication is {on}, revision {}\n", auth.revision());
    for name in auth.users() {
        let roles = auth.user(&name).expect("listed").join(", ");
        let password = auth.password_hash(&name);
        let password = password.map_or("?".to_owned(), text);
        out += &format!("user {name} password={password} roles=[{roles}]\n");
    }
    for name in auth.roles() {
        out += &format!("role {name}\n");
        for permission in auth.role(&name).expect("listed") {
            let (kind, key) = (permission.perm_type().as_str_name(), text(&permission.key));
            let end = match permission.range_end.as_ref() {
                [] => String::new(),
                [0] => "..".to_owned(),
                end => format!("..{}", text(end)),
            };
            out += &format!("  {kind} {key}{end}\n");
        }
    }
    out
}
