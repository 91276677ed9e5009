//! Every family of methods, with the key formats that OpenSSL writes. The keys are made for these
//! tests alone.

use super::*;

const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/store/keys");

fn open(method: &str, private: &str, public: &str, ttl: &str) -> Result<Jwt, TokenError> {
    let file = |name: &str| match name {
        "" => String::new(),
        name => format!("{KEYS}/{name}"),
    };
    let (private, public) = (file(private), file(public));
    let options = BTreeMap::from([
        ("sign-method", method),
        ("priv-key", &*private),
        ("pub-key", &*public),
        ("ttl", ttl),
    ]);
    Jwt::new(&options)
}

fn jwt(method: &str, private: &str, public: &str) -> Jwt {
    open(method, private, public, "").unwrap_or_else(|error| panic!("{method}: {error}"))
}

fn refusal(method: &str, private: &str, public: &str) -> String {
    open(method, private, public, "").expect_err("refused").to_string()
}

#[test]
fn what_a_method_signs_it_verifies() {
    for (method, private, public) in [
        ("HS256", "hmac.key", ""),
        ("HS384", "hmac.key", ""),
        ("HS512", "hmac.key", ""),
        ("RS256", "rsa.key", ""),
        ("RS384", "rsa-pkcs1.key", "rsa.pub"),
        ("RS512", "rsa.key", "rsa.crt"),
        ("PS256", "rsa.key", ""),
        ("PS384", "rsa.key", "rsa.pub"),
        ("PS512", "rsa-pkcs1.key", ""),
        ("ES256", "ec.key", ""),
        ("ES256", "ec-sec1.key", "ec.pub"),
        ("ES384", "ec384.key", "ec384.pub"),
        ("EdDSA", "ed.key", ""),
        ("EdDSA", "ed.key", "ed.pub"),
    ] {
        let jwt = jwt(method, private, public);
        let token = jwt.sign("alice", 7, SystemTime::now()).expect(method);
        assert_eq!(jwt.remembered(&token, SystemTime::now()), None);
        let verified = jwt.verify(&token).unwrap_or_else(|| panic!("{method} {private}"));
        assert_eq!((&*verified.user, verified.revision), ("alice", 7), "{method}");
        assert_eq!(jwt.remembered(&token, SystemTime::now()), Some(verified));
        let bent = format!("{}A", &token[..token.len() - 1]);
        let other = if bent == token { format!("{}B", &token[..token.len() - 1]) } else { bent };
        assert_eq!(jwt.verify(&other), None, "{method}");
    }
}

#[test]
fn the_public_key_alone_verifies() {
    for (method, private, public) in [
        ("RS256", "rsa.key", "rsa.pub"),
        ("ES256", "ec.key", "ec.pub"),
        ("EdDSA", "ed.key", "ed.pub"),
    ] {
        let token = jwt(method, private, "").sign("alice", 7, SystemTime::now()).expect("signed");
        let verifier = jwt(method, "", public);
        assert!(!verifier.can_sign());
        assert_eq!(verifier.sign("alice", 7, SystemTime::now()), Err(AuthError::VerifyOnly));
        assert!(verifier.verify(&token).is_some(), "{method}");
    }
}

#[test]
fn keys_must_be_there_and_fit_together() {
    assert_eq!(refusal("RS256", "", ""), "auth: missing key data");
    assert_eq!(refusal("HS256", "", ""), "auth: missing key data");
    let mismatch = "auth: public and private keys don't match";
    assert_eq!(refusal("EdDSA", "ed-other.key", "ed.pub"), mismatch);
    for (method, private, public) in [
        ("RS256", "ec.key", ""),
        ("ES256", "rsa.key", ""),
        ("ES256", "ec384.key", ""),
        ("ES256", "", "ec384.pub"),
        ("RS256", "", "ec.pub"),
        ("EdDSA", "", "rsa.pub"),
        ("RS256", "hmac.key", ""),
        ("ES384", "ec-sec1.key", ""),
    ] {
        let error = refusal(method, private, public);
        assert!(error.contains(&format!("is no key for {method}")), "{method} {private}: {error}");
    }
}

#[test]
fn options_are_checked_at_the_start() {
    for method in ["", "none", "ES512", "XX256"] {
        let error = refusal(method, "hmac.key", "");
        assert!(error.starts_with("auth: invalid auth options"), "{error}");
    }
    assert!(refusal("HS256", "nothing", "").starts_with("auth: invalid auth options"));
    let error = open("HS256", "hmac.key", "", "soon").expect_err("no duration").to_string();
    assert!(error.starts_with("auth: invalid auth options"), "{error}");
}

#[test]
fn a_token_ends() {
    let jwt = open("HS256", "hmac.key", "", "1m30s").expect("opens");
    let now = SystemTime::now();
    let token = jwt.sign("alice", 1, now - Duration::from_secs(60)).expect("signed");
    assert!(jwt.verify(&token).is_some());
    assert!(jwt.remembered(&token, now).is_some());
    assert_eq!(jwt.remembered(&token, now + Duration::from_secs(31)), None);
    let old = jwt.sign("alice", 1, now - Duration::from_secs(100)).expect("signed");
    assert_eq!(jwt.verify(&old), None);
}

#[test]
fn tokens_of_others_are_read_as_etcd_reads_them() {
    let jwt = jwt("HS256", "hmac.key", "");
    let key = EncodingKey::from_secret(&std::fs::read(format!("{KEYS}/hmac.key")).expect("key"));
    let sign = |method, claims: serde_json::Value| {
        jsonwebtoken::encode(&Header::new(method), &claims, &key).expect("signed")
    };
    let verify = |claims| jwt.verify(&sign(Algorithm::HS256, claims));
    use serde_json::json;
    let endless = verify(json!({ "username": "alice", "revision": 3.0 })).expect("good");
    assert_eq!((&*endless.user, endless.revision, endless.expires), ("alice", 3, None));
    assert!(
        verify(json!({ "username": "alice", "revision": 1, "aud": "x", "iss": "y" })).is_some()
    );
    assert_eq!(verify(json!({ "username": "alice" })), None);
    assert_eq!(verify(json!({ "revision": 1 })), None);
    assert_eq!(verify(json!({ "username": 1, "revision": 1 })), None);
    let early = seconds(SystemTime::now()) + 1_000;
    assert_eq!(verify(json!({ "username": "alice", "revision": 1, "nbf": early })), None);
    let claims = json!({ "username": "alice", "revision": 1 });
    assert_eq!(jwt.verify(&sign(Algorithm::HS512, claims)), None, "another method");
    assert_eq!(jwt.verify("a.1"), None);
    assert_eq!(jwt.verify(""), None);
}

#[test]
fn no_more_than_so_many_are_remembered() {
    let jwt = jwt("HS256", "hmac.key", "");
    for revision in 0..=REMEMBERED_MAX as u64 {
        let token = jwt.sign("alice", revision, SystemTime::now()).expect("signed");
        jwt.verify(&token).expect("good");
    }
    assert_eq!(jwt.verified.read().len(), 1);
}
