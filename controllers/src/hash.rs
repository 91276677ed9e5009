//! Stable hashes that become part of names and labels (`pod-template-hash`, `controller-revision-hash`).
//!
//! The value only has to be stable for the same input and valid in a name; it need not equal upstream's, because nobody
//! recomputes it: a ReplicaSet or revision is found by comparing its content.

use serde::Serialize;

/// FNV-32a over the JSON of `content` (fields in the API's order, maps sorted) and the collision count, written with
/// characters that spell no words.
pub fn content_hash(content: &impl Serialize, collision_count: Option<i32>) -> String {
    let mut hasher = Fnv32a::default();
    serde_json::to_writer(&mut hasher, content)
        .expect("API types have string keys and hashing cannot fail");
    if let Some(count) = collision_count {
        hasher.update(&count.to_le_bytes());
    }
    safe_encode(&hasher.0.to_string())
}

/// Maps each character into the alphabet of generated names.
fn safe_encode(text: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    text.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

struct Fnv32a(u32);

impl Default for Fnv32a {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv32a {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

impl std::io::Write for Fnv32a {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};

    fn template(image: &str) -> PodTemplateSpec {
        let container =
            Container { name: "c".into(), image: Some(image.into()), ..Default::default() };
        PodTemplateSpec {
            spec: Some(PodSpec { containers: vec![container], ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn fnv_matches_its_reference_vectors() {
        for (text, want) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968_u32)] {
            let mut hasher = Fnv32a::default();
            hasher.update(text.as_bytes());
            assert_eq!(hasher.0, want, "{text:?}");
        }
    }

    #[test]
    fn hash_is_frozen_and_follows_content_and_collisions() {
        let one = content_hash(&template("img:1"), None);
        assert_eq!(one, content_hash(&template("img:1"), None));
        assert_ne!(one, content_hash(&template("img:2"), None));
        assert_ne!(one, content_hash(&template("img:1"), Some(1)));
        assert!(one.len() <= 10 && one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
