//! `--auto-tls`: a certificate that a member signs itself, made on the first start and kept.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

use crate::config::TlsFiles;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The certificate and key under `dir`, made for `hosts` if they are not there yet.
pub fn self_signed(dir: &Path, hosts: &[String], years: u32) -> io::Result<TlsFiles> {
    let files = TlsFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem"), ca: None };
    if files.cert.exists() && files.key.exists() {
        return Ok(files);
    }
    fs::create_dir_all(dir)?;
    let mut params = CertificateParams::new(hosts.to_vec()).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now;
    params.not_after = epoch + now + years.max(1) * YEAR;
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let cert = params.self_signed(&key).map_err(io::Error::other)?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&files.key)?;
    file.write_all(key.serialize_pem().as_bytes())?;
    fs::write(&files.cert, cert.pem())?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let files = self_signed(dir.path(), &hosts, 2).expect("made");
        let first = fs::read(&files.cert).expect("there");
        let mode = fs::metadata(&files.key).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = self_signed(dir.path(), &hosts, 2).expect("kept");
        assert_eq!(fs::read(&again.cert).expect("there"), first);
        let (_, pem) = x509_parser::pem::parse_x509_pem(&first).expect("PEM");
        let validity = pem.parse_x509().expect("X.509").validity().clone();
        let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400;
        assert_eq!(days, 2 * 365);
    }
}
