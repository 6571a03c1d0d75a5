//! est-ca's EST server over HTTP on the loopback interface: `devid-judge-est-ca PORT CERTIFICATE KEY`.
//! A proxy before it speaks TLS, and tells the common name of the client's certificate in X-Est-Principal.

use axum::{http::Request, middleware, middleware::Next};
use est_ca::auth::{AuthBackend, Principal};
use est_ca::ca::{CertProfile, Issuer, serial::InMemorySerialStore};
use est_ca::est::server::EstServer;
use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// One user, whose certificate is named `web`.
struct OneUser;

impl AuthBackend for OneUser {
    fn verify_bootstrap(&self, user: &str, password: &str) -> Result<Principal, String> {
        match (user, password) {
            ("device", "secret") => Ok(Principal::new("web")),
            _ => Err("wrong password".into()),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    let [_, port, certificate, key] = &words[..] else {
        return Err("usage: devid-judge-est-ca PORT CERTIFICATE KEY".into());
    };
    let profile = CertProfile::client_auth_for_days(7);
    let serials = Arc::new(InMemorySerialStore::new());
    let issuer = Issuer::load_pem(certificate, key, profile, serials)?;
    let routes = EstServer::new(issuer, Arc::new(OneUser)).router();
    let routes = routes.layer(middleware::from_fn(
        |mut request: Request<axum::body::Body>, next: Next<axum::body::Body>| async move {
            let name = request.headers().get("x-est-principal");
            let name = name.and_then(|name| name.to_str().ok()).unwrap_or_default();
            if !name.is_empty() {
                let principal = Principal::new(name.to_owned());
                request.extensions_mut().insert(principal);
            }
            next.run(request).await
        },
    ));
    let place = (Ipv4Addr::LOCALHOST, port.parse()?).into();
    axum::Server::bind(&place).serve(routes.into_make_service()).await?;
    Ok(())
}
