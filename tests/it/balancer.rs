//! A load balancer in the test's own process, as small as one can be: each connection goes to the next
//! node that is well, and is cut when that node no longer is. It must never look into what it carries.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How often each node is asked how it is.
const ASKED_EVERY: Duration = Duration::from_millis(200);
/// A node that has not answered by then is not well.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Where the nodes are now: whoever restarts one changes its place.
pub(crate) type Places = Arc<Mutex<Vec<String>>>;

/// A running balancer; it ends with the runtime.
pub(crate) struct Balancer {
    /// `http://ADDR:PORT`
    pub(crate) url: String,
}

struct Nodes {
    places: Places,
    /// Addresses of those that are well.
    well: watch::Sender<BTreeSet<String>>,
    next: AtomicUsize,
}

impl Balancer {
    /// Starts one in front of these.
    pub(crate) async fn start(places: Places) -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let nodes =
            Arc::new(Nodes { places, well: watch::Sender::new(BTreeSet::new()), next: AtomicUsize::new(0) });
        tokio::spawn(ask(nodes.clone()));
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(carry(nodes.clone(), from));
            }
        });
        Balancer { url }
    }
}

fn address(url: &str) -> String {
    url.trim_start_matches("http://").to_owned()
}

async fn ask(nodes: Arc<Nodes>) {
    loop {
        let places: Vec<String> = nodes.places.lock().unwrap().iter().map(|url| address(url)).collect();
        let asked = places.into_iter().map(|place| async {
            let well = tokio::time::timeout(ANSWERS_WITHIN, is_well(&place)).await;
            matches!(well, Ok(Ok(true))).then_some(place)
        });
        let well: BTreeSet<String> =
            futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        nodes.well.send_if_modified(|known| {
            let is_new = *known != well;
            *known = well;
            is_new
        });
        tokio::time::sleep(ASKED_EVERY).await;
    }
}

async fn is_well(place: &str) -> std::io::Result<bool> {
    let mut node = TcpStream::connect(place).await?;
    node.write_all(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").await?;
    let mut status = [0; 12];
    node.read_exact(&mut status).await?;
    Ok(status.ends_with(b" 200"))
}

/// Carries one connection to the next node that takes it; closes it when none does.
async fn carry(nodes: Arc<Nodes>, mut from: TcpStream) {
    let mut well = nodes.well.subscribe();
    let able: Vec<String> = well.borrow_and_update().iter().cloned().collect();
    let first = nodes.next.fetch_add(1, SeqCst);
    for n in 0..able.len() {
        let place = &able[(first + n) % able.len()];
        let Ok(mut to) = TcpStream::connect(place).await else { continue };
        tokio::select! {
            _ended = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
            _gone = well.wait_for(|well| !well.contains(place)) => {}
        }
        return;
    }
}
