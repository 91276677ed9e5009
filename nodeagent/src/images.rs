//! Images without a registry: the project's own (pause and demo), built from one static binary,
//! and the import of a user's archive into a node's containerd.
//!
//! Archives are OCI image layouts (image-spec v1.1, `image-layout.md`) in a tar, uncompressed:
//! they are read once, from the local disk. The same input gives the same bytes.

mod layout;

use std::io;
use std::path::{Path, PathBuf};

use tokio::process::Command;

pub use layout::{File, Image};

/// Holds the namespaces of every pod.
pub const PAUSE_IMAGE: &str = "localhost/pintle/pause:latest";
/// The test and demo workload.
pub const DEMO_IMAGE: &str = "localhost/pintle/demo:v1";
/// The same workload, which calls itself v2: something to roll over to.
pub const DEMO_IMAGE_NEXT: &str = "localhost/pintle/demo:v2";
/// The static binary that the images are made of; it lies beside `pintle`.
const BINARY: &str = "pintle-demo";
/// What a shell user expects in the demo image; left out where Debian's busybox-static is missing.
const BUSYBOX: &str = "/bin/busybox";
/// The names under which busybox is linked.
const APPLETS: &[&str] = &[
    "ash",
    "cat",
    "cut",
    "cp",
    "date",
    "df",
    "dd",
    "echo",
    "env",
    "false",
    "find",
    "free",
    "grep",
    "gzip",
    "head",
    "hostname",
    "id",
    "ip",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mount",
    "mv",
    "nc",
    "nslookup",
    "ping",
    "ps",
    "pwd",
    "rm",
    "rmdir",
    "route",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "tail",
    "tar",
    "tee",
    "test",
    "top",
    "touch",
    "true",
    "tty",
    "uname",
    "uniq",
    "vi",
    "wc",
    "wget",
    "which",
    "whoami",
    "xargs",
    "yes",
];

/// Why an image could not be built or imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The static binary is not where it should be.
    #[error("{0} is missing: build it with `make demo`, or set PINTLE_DEMO to its path")]
    NoBinary(PathBuf),
    /// Reading or writing an archive failed.
    #[error("{path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// containerd's client refused.
    #[error("ctr: {0}")]
    Import(String),
}

/// Where the archive of an image of ours lies in `folder`.
fn archive(folder: &Path, name: &str) -> PathBuf {
    let file = name.rsplit('/').next().unwrap_or(name).replace(':', "-");
    folder.join(format!("{file}.tar"))
}

/// Writes the archives of all own images into `folder` and names them.
pub fn build_own(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let binary = find_binary()?;
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })
    };
    let demo = read(&binary)?;
    let busybox = Path::new(BUSYBOX).exists().then(|| read(Path::new(BUSYBOX))).transpose()?;
    std::fs::create_dir_all(folder)
        .map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    let mut archives = Vec::new();
    for image in own_images(&demo, busybox.as_deref()) {
        let path = archive(folder, &image.name);
        image.write(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        archives.push(path);
    }
    Ok(archives)
}

fn find_binary() -> Result<PathBuf, Error> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(BINARY)));
    let path = std::env::var_os("PINTLE_DEMO")
        .map(PathBuf::from)
        .or(beside)
        .unwrap_or_else(|| BINARY.into());
    if path.is_file() { Ok(path) } else { Err(Error::NoBinary(path)) }
}

fn own_images(demo: &[u8], busybox: Option<&[u8]>) -> Vec<Image> {
    let pause = Image {
        name: PAUSE_IMAGE.to_owned(),
        files: vec![File::program("pause", demo)],
        entrypoint: vec!["/pause".to_owned(), "pause".to_owned()],
        command: Vec::new(),
        env: Vec::new(),
    };
    let workload = |name: &str, version: &str| {
        let mut files = vec![File::program("demo", demo), File::folder("tmp", 0o1777)];
        if let Some(busybox) = busybox {
            files.push(File::folder("bin", 0o755));
            files.push(File::program("bin/busybox", busybox));
            let link = |applet: &&str| File::link(&format!("bin/{applet}"), "/bin/busybox");
            files.extend(APPLETS.iter().map(link));
        }
        Image {
            name: name.to_owned(),
            files,
            entrypoint: Vec::new(),
            command: vec!["/demo".to_owned(), "serve".to_owned()],
            env: vec!["PATH=/bin:/".to_owned(), format!("VERSION={version}")],
        }
    };
    vec![pause, workload(DEMO_IMAGE, "v1"), workload(DEMO_IMAGE_NEXT, "v2")]
}

/// Imports an archive into the containerd of the node with this data folder; returns the images' names.
pub async fn import(data_dir: &Path, file: &Path) -> Result<Vec<String>, Error> {
    let socket = crate::containerd::socket_path(data_dir);
    let output = Command::new("ctr")
        .arg("--address")
        .arg(&socket)
        .args(["--namespace", "k8s.io", "images", "import", "--no-unpack"])
        .arg(file)
        .output()
        .await
        .map_err(|source| Error::Io { path: "ctr".into(), source })?;
    if !output.status.success() {
        return Err(Error::Import(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(imported_name).collect())
}

/// "unpacking NAME (sha256:…)...done" or "NAME  saved", by version of `ctr`.
fn imported_name(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["unpacking", name, ..] | [name, "saved", ..] => Some((*name).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_named_by_image_and_tag() {
        let path = archive(Path::new("/x"), DEMO_IMAGE_NEXT);
        assert_eq!(path, Path::new("/x/demo-v2.tar"));
    }

    #[test]
    fn names_are_read_from_either_output() {
        let line = "unpacking localhost/pintle/demo:v1 (sha256:abc)...done";
        assert_eq!(imported_name(line).as_deref(), Some("localhost/pintle/demo:v1"));
        assert_eq!(imported_name("a/b:c  saved").as_deref(), Some("a/b:c"));
        assert_eq!(imported_name("application/vnd.oci.image.manifest.v1+json sha256:1"), None);
    }
}
