//! The mount table: what is mounted below a folder, and unmounting it.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

/// Mount points at or below `folder`, the innermost first.
pub fn mounted_below(folder: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = mount_points(&table).filter(|p| p.starts_with(folder)).collect();
    found.reverse();
    found
}

/// Whether something is mounted exactly at `path`.
pub fn is_mount_point(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_points(&table).any(|point| point == path)
}

/// Unmounts everything at or below `folder`; what is busy goes when its last user does.
pub fn unmount_below(folder: &Path) {
    for point in mounted_below(folder) {
        if let Err(error) = umount2(&point, MntFlags::MNT_DETACH) {
            tracing::warn!(path = %point.display(), %error, "cannot unmount");
        }
    }
}

/// The fifth column, with the kernel's octal escapes undone.
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> + '_ {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
}

fn unescape(field: &str) -> String {
    let mut plain = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match code {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_blanks_are_read() {
        let table = "36 35 98:0 /mnt1 /mnt\\040two rw - ext3 /dev/root rw\n37 36 0:1 / /mnt\\040two/in rw - tmpfs tmpfs rw\n";
        let points: Vec<_> = mount_points(table).collect();
        assert_eq!(points, [PathBuf::from("/mnt two"), PathBuf::from("/mnt two/in")]);
    }
}
