//! Users, roles and permissions that come and go, and what users may and may not do with keys.
//!
//! A sequence is first without authentication, then with it, then without it again. Root's password
//! stays what it is, or nobody could clear up behind a sequence; everything else about
//! everybody changes.

use rand::Rng;

use super::{Profile, Source};
use crate::differential::call::{Auth, Call, Permission};
use crate::differential::side::{ROOT, ROOT_PASSWORD};

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const ROLES: [&str; 3] = ["reader", "writer", "other"];
const PASSWORDS: [&str; 2] = ["pw", "secret"];
/// Shares of a sequence, in percent: where authentication goes on, and off.
const ON: usize = 15;
const OFF: usize = 90;

pub(super) fn calls(source: &mut Source, calls: &mut Vec<Call>, count: usize) {
    while calls.len() < count * ON / 100 {
        calls.push(source.next(Profile::Auth));
    }
    calls.extend(beginning(source));
    while calls.len() < count * OFF / 100 {
        calls.push(source.next(Profile::Auth));
    }
    calls.push(by(ROOT, Call::Auth(Auth::Disable)));
    while calls.len() < count {
        calls.push(source.next(Profile::Auth));
    }
    calls.truncate(count);
}

/// One call of somebody.
pub(super) fn call(source: &mut Source) -> Call {
    match source.0.random_range(0..100) {
        0..22 => manage(source),
        22..34 => Call::Auth(login(source)),
        34..36 => anyone(source, Call::Auth(Auth::Status)),
        36..76 => keys(source),
        76..84 => leases(source),
        84..91 => {
            let watch = Call::WatchAlone(source.watch());
            anyone(source, watch)
        }
        91..94 => {
            let compact = Call::Compact { revision: source.rev(), physical: false };
            anyone(source, compact)
        }
        94..99 => {
            let call = source.maintenance();
            anyone(source, call)
        }
        _ => anyone(source, Call::Auth(Auth::Disable)),
    }
}

fn by(user: &str, call: Call) -> Call {
    Call::As { user: user.to_owned(), call: Box::new(call) }
}

/// A user with its token, somebody with a forged one, or nobody.
fn anyone(source: &mut Source, call: Call) -> Call {
    match source.0.random_range(0..100) {
        0..20 => by(ROOT, call),
        20..85 => by(source.of(&USERS), call),
        85..89 => by("nobody", call),
        _ => call,
    }
}

/// Mostly who may.
fn administrator(source: &mut Source, call: Call) -> Call {
    if source.chance(85) { by(ROOT, call) } else { anyone(source, call) }
}

/// Makes sure that there is a root, and turns authentication on.
fn beginning(source: &mut Source) -> Vec<Call> {
    let mut calls = vec![
        Call::Auth(user_add(ROOT, ROOT_PASSWORD)),
        Call::Auth(Auth::UserGrantRole { user: ROOT.to_owned(), role: ROOT.to_owned() }),
    ];
    for role in ROLES {
        calls.push(Call::Auth(Auth::RoleAdd { role: role.to_owned() }));
        for _ in 0..2 {
            calls.push(Call::Auth(grant_permission(source, role)));
        }
    }
    for (user, role) in USERS.into_iter().zip(ROLES) {
        calls.push(Call::Auth(user_add(user, PASSWORDS[0])));
        let (user, role) = (user.to_owned(), role.to_owned());
        calls.push(Call::Auth(Auth::UserGrantRole { user, role }));
    }
    calls.push(Call::Auth(Auth::Enable));
    calls.push(Call::Auth(root_login()));
    for user in USERS {
        calls.push(Call::Auth(authenticate(user, PASSWORDS[0])));
    }
    calls
}

fn user_add(user: &str, password: &str) -> Auth {
    Auth::UserAdd { user: user.to_owned(), password: password.to_owned(), no_password: None }
}

fn authenticate(user: &str, password: &str) -> Auth {
    Auth::Authenticate { user: user.to_owned(), password: password.to_owned() }
}

fn root_login() -> Auth {
    authenticate(ROOT, ROOT_PASSWORD)
}

fn login(source: &mut Source) -> Auth {
    match source.0.random_range(0..10) {
        0..2 => root_login(),
        2 => authenticate(ROOT, &password(source)),
        _ => authenticate(&user(source), &password(source)),
    }
}

/// Not root, whose name and password go together.
fn user(source: &mut Source) -> String {
    match source.0.random_range(0..20) {
        0 => String::new(),
        1 => "nobody".to_owned(),
        _ => source.of(&USERS).to_owned(),
    }
}

fn user_or_root(source: &mut Source) -> String {
    if source.chance(20) { ROOT.to_owned() } else { user(source) }
}

fn role(source: &mut Source) -> String {
    match source.0.random_range(0..20) {
        0 => String::new(),
        1 => "none".to_owned(),
        2 | 3 => ROOT.to_owned(),
        _ => source.of(&ROLES).to_owned(),
    }
}

fn password(source: &mut Source) -> String {
    match source.0.random_range(0..20) {
        0 => String::new(),
        1 => "x".repeat(73),
        2 => "wrong".to_owned(),
        3..13 => PASSWORDS[0].to_owned(),
        _ => PASSWORDS[1].to_owned(),
    }
}

fn grant_permission(source: &mut Source, role: &str) -> Auth {
    let (key, end) = source.span();
    let perm_type = if source.chance(3) { 7 } else { source.0.random_range(0..3) };
    let permission = (!source.chance(3)).then_some(Permission { perm_type, key, end });
    Auth::RoleGrantPermission { role: role.to_owned(), permission }
}

/// A change of users or roles, or a look at them.
fn manage(source: &mut Source) -> Call {
    let call = match source.0.random_range(0..100) {
        0..8 => Auth::Enable,
        8..18 => add_user(source),
        18..23 => Auth::UserDelete { user: user_or_root(source) },
        23..30 => change_password(source),
        30..42 => Auth::UserGrantRole { user: user_or_root(source), role: role(source) },
        42..48 => Auth::UserRevokeRole { user: user_or_root(source), role: role(source) },
        48..54 => Auth::RoleAdd { role: role(source) },
        54..57 => Auth::RoleDelete { role: role(source) },
        57..73 => {
            let role = role(source);
            grant_permission(source, &role)
        }
        73..79 => {
            let (key, end) = source.span();
            Auth::RoleRevokePermission { role: role(source), key, end }
        }
        _ => return look(source),
    };
    administrator(source, Call::Auth(call))
}

fn add_user(source: &mut Source) -> Auth {
    if source.chance(15) {
        return user_add(ROOT, ROOT_PASSWORD);
    }
    let (user, password) = (user(source), password(source));
    Auth::UserAdd { user, password, no_password: source.of(&[None, None, Some(false), Some(true)]) }
}

fn change_password(source: &mut Source) -> Auth {
    let (user, password) = match source.chance(15) {
        true => (ROOT.to_owned(), ROOT_PASSWORD.to_owned()),
        false => (user(source), password(source)),
    };
    Auth::UserChangePassword { user, password }
}

fn look(source: &mut Source) -> Call {
    let call = match source.0.random_range(0..10) {
        0..4 => Auth::UserGet { user: user_or_root(source) },
        4 => Auth::UserList,
        5..9 => Auth::RoleGet { role: role(source) },
        _ => Auth::RoleList,
    };
    anyone(source, Call::Auth(call))
}

fn keys(source: &mut Source) -> Call {
    let call = match source.0.random_range(0..10) {
        0..3 => Call::Range(source.range()),
        3..6 => Call::Put(source.put()),
        6..8 => Call::Delete(source.delete()),
        _ => Call::Txn(source.txn(2)),
    };
    anyone(source, call)
}

fn leases(source: &mut Source) -> Call {
    let call = match source.0.random_range(0..10) {
        0..4 => Call::LeaseGrant { id: source.lease(), ttl: source.ttl() },
        4..6 => Call::LeaseRevoke { id: source.lease() },
        6..8 => Call::LeaseTimeToLive { id: source.lease(), keys: source.chance(70) },
        8 => Call::LeaseKeepAlive { id: source.lease() },
        _ => Call::LeaseLeases,
    };
    anyone(source, call)
}
