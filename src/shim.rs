//! A stand-in for HTTP until it lands; to be deleted then. Orders "ship" by
//! the clock, nothing is stored.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

pub(crate) mod http {
    //! Stand-in for `crate::http`.
    use std::collections::HashMap;
    use std::io;
    use std::net::TcpListener;
    use std::num::NonZeroU32;
    use std::sync::Mutex;
    use std::time::Instant;

    use actix_web::{App, HttpResponse, HttpServer, web};
    use chrono::{SecondsFormat, Utc};
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    pub(crate) enum Role {
        Client { client: String },
        Wms { warehouses: Vec<String> },
        Operator,
    }
    pub(crate) struct KeyConfig {
        pub role: Role,
        pub sha256: [u8; 32],
    }
    pub(crate) struct HttpOptions {
        pub keys: Vec<KeyConfig>,
        pub body_max: usize,
        pub batch_body_max: usize,
        pub client_rate: Option<NonZeroU32>,
        pub drain: CancellationToken,
        pub loopback_only: bool,
    }
    #[derive(Default)]
    struct Book {
        by_reference: Mutex<HashMap<String, String>>,
        orders: Mutex<HashMap<String, (Instant, String)>>,
    }
    fn now() -> String {
        Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
    }
    impl Book {
        fn take(&self, order: &Value) -> Value {
            let Some(reference) = order["reference"].as_str().filter(|r| !r.starts_with("bad")) else {
                let errors = json!([{"pointer": "/reference", "code": "required", "detail": "is missing"}]);
                return json!({"status": 422, "problem": {"code": "validation_failed", "title": "Invalid", "status": 422,
                    "detail": "the order is not valid", "errors": errors}});
            };
            let mut by = self.by_reference.lock().unwrap();
            let replay = by.contains_key(reference);
            let id =
                by.entry(reference.to_owned()).or_insert_with(|| uuid::Uuid::new_v4().to_string()).clone();
            self.orders.lock().unwrap().entry(id.clone()).or_insert((Instant::now(), now()));
            json!({"status": 202, "transaction_id": id, "replayed": replay, "accepted_at": now()})
        }
        fn document(&self, id: &str) -> Value {
            let orders = self.orders.lock().unwrap();
            let Some((at, text)) = orders.get(id) else {
                return json!({"transaction_id": id, "problem": {"status": 404}});
            };
            let age = at.elapsed().as_millis();
            let state = match age {
                0..300 => "accepted",
                300..900 => "picking",
                900..1500 => "packed",
                _ => "shipped",
            };
            json!({"transaction_id": id, "state": state, "done": state == "shipped", "accepted_at": text,
                "history": [{"version": 1, "state": "accepted", "at": text}, {"version": 2, "state": state, "at": now()}]})
        }
    }

    pub(crate) fn start(
        _engine: wavegate_engine::engine::Handle,
        _options: HttpOptions,
        listener: TcpListener,
    ) -> io::Result<actix_web::dev::Server> {
        let book = web::Data::new(Book::default());
        let app = move || {
            App::new()
                .app_data(book.clone())
                .app_data(web::PayloadConfig::new(20 << 20))
                .route("/healthz", web::get().to(async || HttpResponse::Ok().json(json!({"status": "ok"}))))
                .route("/readyz", web::get().to(async || HttpResponse::Ok().json(json!({"status": "ready"}))))
                .route(
                    "/v1/orders",
                    web::post().to(async |b: web::Data<Book>, v: web::Json<Value>| one(&b, &v)),
                )
                .route(
                    "/v1/inventory/moves",
                    web::post().to(async |b: web::Data<Book>, v: web::Json<Value>| one(&b, &v)),
                )
                .route("/v1/orders/batch", web::post().to(batch))
                .route("/v1/status/query", web::post().to(query))
                .route(
                    "/v1/status/{id}",
                    web::get().to(async |b: web::Data<Book>, id: web::Path<String>| {
                        HttpResponse::Ok().json(b.document(&id))
                    }),
                )
        };
        Ok(HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run())
    }
    fn one(book: &Book, v: &Value) -> HttpResponse {
        let mut result = book.take(v);
        if result["status"] == 202 {
            let replayed = result["replayed"].to_string();
            result["state"] = "accepted".into();
            return HttpResponse::Accepted().insert_header(("Idempotent-Replayed", replayed)).json(result);
        }
        HttpResponse::UnprocessableEntity().json(&result["problem"])
    }
    async fn batch(book: web::Data<Book>, body: web::Bytes) -> HttpResponse {
        let items: Vec<Value> = serde_json::from_slice(&body).unwrap_or_else(|_| {
            body.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect()
        });
        let results: Vec<Value> = items
            .iter()
            .enumerate()
            .map(|(i, v)| {
                let mut r = book.take(v);
                r["index"] = i.into();
                r
            })
            .collect();
        if results.iter().any(|r| r["status"] == 202) {
            HttpResponse::Accepted().json(json!({"results": results}))
        } else {
            HttpResponse::UnprocessableEntity().json(json!({"results": results}))
        }
    }
    async fn query(book: web::Data<Book>, body: web::Json<Value>) -> HttpResponse {
        let ids = body["ids"].as_array().cloned().unwrap_or_default();
        let items: Vec<Value> = ids.iter().map(|id| book.document(id.as_str().unwrap_or(""))).collect();
        HttpResponse::Ok().json(json!({"items": items}))
    }
}
