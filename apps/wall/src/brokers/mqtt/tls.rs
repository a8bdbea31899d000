// SPDX-License-Identifier: MPL-2.0
//! TLS to a broker. The client's own way to it ends the process where the system has no certificates.

use std::path::Path;
use std::sync::Arc;

use rumqttc::Transport;
use rumqttc::tokio_rustls::rustls::crypto::ring;
use rumqttc::tokio_rustls::rustls::pki_types::CertificateDer;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject as _;
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Trusts the certificates of the file `ca`, or the system's.
///
/// # Errors
///
/// There are none, or they cannot be read.
pub(super) fn transport(ca: Option<&Path>) -> Result<Transport, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let fault = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| fault(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| fault(&error))?;
                roots.add(certificate).map_err(|error| fault(&error))?;
            }
            if roots.is_empty() {
                return Err(fault(&"there is no certificate in it (PEM)"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(
                    "the system has no certificates to trust; `ca` in section [mqtt] names a file"
                        .into(),
                );
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Transport::tls_with_config(config.into()))
}
