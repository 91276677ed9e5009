//! One image as an OCI layout archive: a single layer, its configuration, manifest and index.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// One entry of the image's file system.
#[derive(Clone, Debug)]
pub struct File {
    path: String,
    mode: u32,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Vec<u8>),
    Folder,
    Link(String),
}

impl File {
    /// An executable file.
    pub fn program(path: &str, bytes: &[u8]) -> Self {
        Self { path: path.to_owned(), mode: 0o755, content: Content::Bytes(bytes.to_vec()) }
    }

    /// An empty folder.
    pub fn folder(path: &str, mode: u32) -> Self {
        Self { path: path.to_owned(), mode, content: Content::Folder }
    }

    /// A symbolic link.
    pub fn link(path: &str, target: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o777, content: Content::Link(target.to_owned()) }
    }
}

/// What to put into an image, and what it runs.
#[derive(Clone, Debug)]
pub struct Image {
    /// With its tag.
    pub name: String,
    /// In the order of the layer.
    pub files: Vec<File>,
    /// Cannot be replaced by `args` of a container.
    pub entrypoint: Vec<String>,
    /// Can.
    pub command: Vec<String>,
    /// NAME=value.
    pub env: Vec<String>,
}

/// A blob of the layout and its descriptor.
struct Blob {
    media_type: &'static str,
    bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { media_type, bytes, digest }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes.len(),
        })
    }
}

impl Image {
    /// Writes the archive beside `path` and renames it.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("tmp");
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&self.archive()?)?;
        file.sync_all()?;
        std::fs::rename(beside, path)
    }

    /// The archive's bytes.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", self.layer()?);
        let config = Blob::json("application/vnd.oci.image.config.v1+json", &self.config(&layer));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        });
        let manifest = Blob::json("application/vnd.oci.image.manifest.v1+json", &manifest);
        let mut tar = tar::Builder::new(Vec::new());
        append(
            &mut tar,
            "oci-layout",
            json!({"imageLayoutVersion": "1.0.0"}).to_string().as_bytes(),
        )?;
        append(&mut tar, "index.json", self.index(&manifest).to_string().as_bytes())?;
        for blob in [&layer, &config, &manifest] {
            append(&mut tar, &format!("blobs/sha256/{}", blob.digest), &blob.bytes)?;
        }
        tar.into_inner()
    }

    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for file in &self.files {
            let mut header = tar::Header::new_ustar();
            header.set_mode(file.mode);
            header.set_mtime(0);
            match &file.content {
                Content::Bytes(bytes) => {
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, &file.path, bytes.as_slice())?;
                }
                Content::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    tar.append_data(&mut header, &file.path, io::empty())?;
                }
                Content::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, &file.path, target)?;
                }
            }
        }
        tar.into_inner()
    }

    fn config(&self, layer: &Blob) -> Value {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.command,
                "Env": self.env,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
        })
    }

    fn index(&self, manifest: &Blob) -> Value {
        let mut descriptor = manifest.descriptor();
        descriptor["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name.rsplit(':').next(),
        });
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        })
    }
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn image() -> Image {
        Image {
            name: "localhost/x:v1".to_owned(),
            files: vec![File::program("bin/x", b"program"), File::link("y", "/bin/x")],
            entrypoint: vec!["/bin/x".to_owned()],
            command: Vec::new(),
            env: Vec::new(),
        }
    }

    #[test]
    fn the_same_image_gives_the_same_bytes() {
        assert_eq!(image().archive().expect("first"), image().archive().expect("second"));
    }

    #[test]
    fn every_descriptor_names_a_blob_of_its_size() {
        let bytes = image().archive().expect("archive");
        let mut sizes = std::collections::BTreeMap::new();
        let mut index = Value::Null;
        let mut archive = tar::Archive::new(bytes.as_slice());
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("entry");
            let path = entry.path().expect("path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            if path == "index.json" {
                index = serde_json::from_slice(&content).expect("index");
            }
            sizes.insert(path, content.len() as u64);
        }
        let manifest = &index["manifests"][0];
        let digest = manifest["digest"].as_str().expect("digest").replace("sha256:", "");
        assert_eq!(
            sizes[&format!("blobs/sha256/{digest}")],
            manifest["size"].as_u64().expect("size")
        );
        assert_eq!(manifest["annotations"]["io.containerd.image.name"], "localhost/x:v1");
    }
}
