//! Pages for people, and what they are made of. Nothing of a client stands in them: a page asks for it
//! as any caller does.

use actix_web::http::header::{self, Header, IfNoneMatch};
use actix_web::{HttpRequest, HttpResponse};
use sha2::{Digest, Sha256};

/// What a page may do: run and show what comes from here, and call here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /track/{id}`: a browser follows one transaction live. The page is the same for every id.
pub(crate) async fn track(request: HttpRequest) -> HttpResponse {
    file(&request, "text/html; charset=utf-8", include_str!("../pages/track.html"))
}

/// `GET /assets/track.js`
pub(crate) async fn track_script(request: HttpRequest) -> HttpResponse {
    file(&request, "text/javascript; charset=utf-8", include_str!("../pages/track.js"))
}

/// `GET /assets/track.css`
pub(crate) async fn track_style(request: HttpRequest) -> HttpResponse {
    file(&request, "text/css; charset=utf-8", include_str!("../pages/track.css"))
}

/// A part of this program: a browser asks whether it has changed, and it has not until the next version.
fn file(request: &HttpRequest, media: &'static str, text: &'static str) -> HttpResponse {
    let digest = Sha256::digest(text);
    let number = u64::from_be_bytes(*digest.first_chunk().unwrap_or(&[0; 8]));
    let tag = header::EntityTag::new_strong(format!("{number:016x}"));
    let known = match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(&tag)),
        Ok(IfNoneMatch::Any) | Err(_) => false,
    };
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header(header::ETag(tag))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY));
    if known { response.finish() } else { response.content_type(media).body(text) }
}
