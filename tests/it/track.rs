//! The page that follows one transaction, in a real Chromium.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use chromiumoxide::cdp::browser_protocol::accessibility::GetFullAxTreeParams;
use chromiumoxide::cdp::browser_protocol::emulation::{
    MediaFeature, SetDeviceMetricsOverrideParams, SetEmulatedMediaParams,
};
use chromiumoxide::{Browser, BrowserConfig, Page};
use futures_util::StreamExt;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::door::{ACME, OPERATOR, get, keys, order, post, request, send};
use crate::estimates;
use crate::server::TestServer;

/// A browser on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A Chromium of its own, with an empty profile.
struct Chromium {
    browser: Browser,
    _profile: tempfile::TempDir,
}

impl Chromium {
    async fn start() -> Chromium {
        let profile = tempfile::tempdir().unwrap();
        let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(|name| {
            std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|p| p.is_file())
        });
        let config = BrowserConfig::builder()
            .chrome_executable(found.expect("Chromium is not installed: tests/run installs it"))
            .no_sandbox()
            .user_data_dir(profile.path())
            .launch_timeout(PATIENCE)
            .args([
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ]);
        let (browser, mut handler) = Browser::launch(config.build().unwrap()).await.expect("Chromium starts");
        actix_rt::spawn(async move { while handler.next().await.is_some() {} });
        Chromium { browser, _profile: profile }
    }

    async fn open(&self, url: &str) -> Page {
        self.browser.new_page(url).await.unwrap()
    }

    async fn close(mut self) {
        self.browser.close().await.ok();
        self.browser.wait().await.ok();
    }
}

async fn eval<T: DeserializeOwned>(page: &Page, script: &str) -> T {
    page.evaluate(script).await.unwrap().into_value().unwrap()
}

async fn text(page: &Page, id: &str) -> String {
    eval(page, &format!("document.getElementById('{id}').textContent")).await
}

/// Waits until an element's text is as wanted.
async fn text_when(page: &Page, id: &str, wanted: &str) {
    let until = Instant::now() + PATIENCE;
    loop {
        let is = text(page, id).await;
        if is.contains(wanted) {
            return;
        }
        assert!(Instant::now() < until, "#{id} is {is:?} and not {wanted:?} within {PATIENCE:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A server that comes back at the same address.
fn server() -> TestServer {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    TestServer::start_with(&[&keys(), &format!("http.listen={free}"), "manifests.close_every=100ms"])
}

async fn placed(server: &TestServer, reference: &str) -> String {
    let sent = request(server, Method::POST, "/v1/orders").bearer_auth(ACME);
    send(sent.json(&order(reference))).await.id().to_owned()
}

/// The address of an order's page, with a ticket.
async fn link(server: &TestServer, id: &str) -> String {
    let sent = request(server, Method::POST, "/v1/events/tickets").bearer_auth(ACME);
    let answer = send(sent.json(&json!({"transaction_id": id}))).await;
    server.at(&format!("/track/{id}?ticket={}", answer.text("ticket")))
}

/// Stock for every order of these tests.
async fn stocked(server: &TestServer) {
    let lines = order("any")["lines"].clone();
    for (n, line) in lines.as_array().unwrap().iter().enumerate() {
        let body = json!({"owner": "acme", "reference": format!("R-{n}"), "warehouse": "ATL1", "type": "receipt",
            "sku": line["sku"], "quantity": 1_000});
        let sent = request(server, Method::POST, "/v1/inventory/moves").bearer_auth(OPERATOR);
        assert_eq!(send(sent.json(&body)).await.status, 202);
    }
}

#[actix_rt::test]
async fn a_browser_follows_an_order_to_its_truck_and_goes_on_by_itself_after_the_server_was_killed() {
    let mut server = server();
    let id = placed(&server, "TRACK-1").await;
    let chromium = Chromium::start().await;
    let page = chromium.open(&link(&server, &id).await).await;
    text_when(&page, "headline", "Backordered").await;
    text_when(&page, "connection", "live").await;
    assert!(text(&page, "title").await.contains("TRACK-1"));
    assert!(text(&page, "exceptions-list").await.contains("unknown sku"));
    assert!(
        eval::<bool>(&page, "document.getElementById('estimate').hidden").await,
        "nobody promises anything"
    );
    // The ticket stays in no history and is copied along by nobody.
    assert_eq!(eval::<String>(&page, "location.search").await, "");
    server.kill();
    text_when(&page, "connection", "reconnecting").await;
    server.restart();
    text_when(&page, "connection", "live").await;
    stocked(&server).await;
    text_when(&page, "headline", "Shipped").await;
    text_when(&page, "connection", "done").await;
    assert!(!text(&page, "cartons-list").await.contains("no tracking number"));
    let current: String = eval(&page, "document.querySelector('#steps [aria-current]').textContent").await;
    assert_eq!(current, "shipped");
    let status = request(&server, Method::GET, &format!("/v1/status/{id}")).bearer_auth(ACME);
    let document = send(status).await.body;
    let rows: Vec<Vec<String>> = eval(
        &page,
        "[...document.querySelectorAll('#lines-body tr')].map(r => [...r.children].map(c => c.textContent))",
    )
    .await;
    let lines = document["lines"].as_array().unwrap();
    assert_eq!(rows.len(), lines.len());
    for (row, line) in rows.iter().zip(lines) {
        assert_eq!((&*row[1], &*row[5]), (line["sku"].as_str().unwrap(), &*line["shipped"].to_string()));
    }
    // Every version was shown once or passed over for a newer one; the history is whole.
    let facts: usize = eval(&page, "document.querySelectorAll('#history-list li').length").await;
    assert_eq!(facts, document["history"].as_array().unwrap().len());
    let origins: Vec<String> =
        eval(&page, "performance.getEntriesByType('resource').map(r => new URL(r.name).origin)").await;
    assert!(origins.iter().all(|origin| *origin == server.url), "{origins:?}");
    // Loaded again it needs no ticket: the cookie is there.
    page.reload().await.unwrap();
    text_when(&page, "headline", "Shipped").await;
    chromium.close().await;
}

#[actix_rt::test]
async fn a_browser_is_shown_by_when_an_order_will_leave_once_that_is_told_and_no_longer_when_it_has() {
    let (server, mut wms) = estimates::two_sides(&[]);
    estimates::measured(&server).await;
    // Its wave is answered by nobody: the order is late after a while.
    wms.kill();
    let id = post(&server, "/v1/orders", &order("LATE")).await.id().to_owned();
    let chromium = Chromium::start().await;
    let page = chromium.open(&server.at(&format!("/track/{id}"))).await;
    text_when(&page, "headline", "Released").await;
    let hidden = "document.getElementById('estimate').hidden";
    text_when(&page, "estimate", "Likely to leave by ").await;
    assert!(!eval::<bool>(&page, hidden).await);
    let told = get(&server, &format!("/v1/status/{id}/events")).await.body;
    let told = told["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(told["type"], "wavegate.order.estimate_changed");
    let shown = "document.querySelector('#estimate time').dateTime";
    assert_eq!(eval::<String>(&page, shown).await, told["data"]["estimate"]["shipped_p90"].as_str().unwrap());
    // Loaded again it knows it by the order's own events.
    page.reload().await.unwrap();
    text_when(&page, "estimate", "Likely to leave by ").await;
    wms.start();
    text_when(&page, "headline", "Shipped").await;
    assert!(eval::<bool>(&page, hidden).await, "it has left");
    chromium.close().await;
}

#[actix_rt::test]
async fn a_link_that_was_used_says_so_in_another_browser_and_one_without_a_ticket_shows_nothing() {
    let server = server();
    let id = placed(&server, "TRACK-2").await;
    let used = link(&server, &id).await;
    let (first, second) = (Chromium::start().await, Chromium::start().await);
    let page = first.open(&used).await;
    text_when(&page, "headline", "Backordered").await;
    let page = second.open(&used).await;
    text_when(&page, "connection", "this link was used").await;
    let page = second.open(&server.at(&format!("/track/{id}"))).await;
    text_when(&page, "connection", "this link was used").await;
    assert!(!text(&page, "title").await.contains("TRACK-2"));
    first.close().await;
    second.close().await;
}

/// The contrast of an element's text with what is behind the page (WCAG 2.2, 1.4.3).
const CONTRAST: &str = "(selector) => {
    const channels = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const luminance = (colour) => channels(colour).map((c) => c / 255)
        .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
    const back = luminance(getComputedStyle(document.body).backgroundColor);
    return [...document.querySelectorAll(selector)].filter((e) => e.textContent.trim()).map((e) => {
        const front = luminance(getComputedStyle(e).color);
        return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    }).reduce((least, one) => Math.min(least, one), 21);
}";

#[actix_rt::test]
async fn the_page_can_be_read_out_worked_by_keyboard_on_a_phone_and_in_the_dark() {
    let server = server();
    let id = placed(&server, "TRACK-3").await;
    stocked(&server).await;
    let chromium = Chromium::start().await;
    let page = chromium.open(&link(&server, &id).await).await;
    text_when(&page, "connection", "done").await;

    let tree = page.execute(GetFullAxTreeParams::default()).await.unwrap();
    let nodes: Vec<(String, String)> = tree
        .nodes
        .iter()
        .filter(|node| !node.ignored)
        .map(|node| {
            let text = |value: &Option<chromiumoxide::cdp::browser_protocol::accessibility::AxValue>| {
                value.as_ref().and_then(|v| v.value.clone()).and_then(|v| v.as_str().map(str::to_owned))
            };
            (text(&node.role).unwrap_or_default(), text(&node.name).unwrap_or_default())
        })
        .collect();
    let named =
        |role: &str| nodes.iter().filter(|(is, _)| is == role).map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(named("heading")[0], "Order TRACK-3");
    assert!(named("list").iter().any(|name| *name == "Progress"), "{nodes:?}");
    assert_eq!(named("columnheader").len(), 8);
    assert_eq!(named("status").len(), 2);
    let mut buttons = named("button");
    assert!(!buttons.is_empty() && buttons.iter().all(|name| !name.is_empty()));
    buttons.dedup();
    assert_eq!(buttons.len(), named("button").len(), "each button says what it is for");

    // Everything that can be used is reached by the tabulator and shows it.
    let mut reached = Vec::new();
    for _ in 0..8 {
        page.find_element("body").await.unwrap().press_key("Tab").await.unwrap();
        let focused: Value = eval(
            &page,
            "(() => { const e = document.activeElement; return [e.id || e.tagName, getComputedStyle(e).outlineStyle] })()",
        )
        .await;
        reached.push(focused);
    }
    for wanted in ["SUMMARY", "A"] {
        assert!(reached.iter().any(|e| e[0] == wanted && e[1] == "solid"), "{wanted} in {reached:?}");
    }

    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        let feature = MediaFeature::new("prefers-color-scheme", scheme);
        page.execute(SetEmulatedMediaParams::builder().feature(feature).build()).await.unwrap();
        let least: f64 = eval(&page, &format!("({CONTRAST})('body *:not(script):not(style)')")).await;
        assert!(least >= 4.5, "{scheme}: {least}");
        grounds.push(eval::<String>(&page, "getComputedStyle(document.body).backgroundColor").await);
    }
    assert_ne!(grounds[0], grounds[1]);

    page.execute(SetDeviceMetricsOverrideParams::new(360, 740, 2.0, true)).await.unwrap();
    let wide: i64 = eval(&page, "document.scrollingElement.scrollWidth").await;
    assert!(wide <= 360, "a phone would have to scroll sideways: {wide}");
    chromium.close().await;
}
