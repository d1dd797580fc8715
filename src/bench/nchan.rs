//! nginx with the nchan module, as a process of our own: what streams of events are compared with.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Error, machine};

/// The longest that it may take to listen.
const START_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// nginx with nchan, as a process of our own.
pub(super) struct Nginx {
    child: Child,
    /// Where it listens.
    pub(super) address: SocketAddr,
    _dir: tempfile::TempDir,
}

/// Where Debian puts the module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

impl Nginx {
    /// Whether there is one.
    pub(super) fn is_installed() -> bool {
        let found = Command::new("nginx").arg("-v").stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success()) && Path::new(MODULE).exists()
    }

    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn start(dir: tempfile::TempDir) -> Result<Nginx, Error> {
        let failed = |e| Error::io("start nginx", e);
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(failed)?;
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config(dir.path(), free)).map_err(failed)?;
        let log = std::fs::File::create(dir.path().join("stderr.log")).map_err(failed)?;
        let child = Command::new("nginx").arg("-p").arg(dir.path()).arg("-c").arg(&file).stderr(log).spawn();
        let nginx = Nginx { child: child.map_err(failed)?, address: free, _dir: dir };
        let until = Instant::now() + START_MAX;
        while std::net::TcpStream::connect(free).is_err() {
            if Instant::now() > until {
                return Err(Error::failed("nginx does not listen"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(nginx)
    }

    /// Bytes of memory of its own, its workers' too.
    pub(super) fn memory(&self) -> u64 {
        machine::memory_of_tree(self.child.id())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with their master when that is asked to.
        let quit = Command::new("kill").arg("-QUIT").arg(self.child.id().to_string()).status();
        if !quit.is_ok_and(|status| status.success()) {
            self.child.kill().ok();
        }
        self.child.wait().ok();
    }
}

fn config(dir: &Path, address: SocketAddr) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {}/{name};\n", dir.display()))
        .collect();
    format!(
        "load_module {MODULE};\ndaemon off;\nworker_processes 2;\nworker_rlimit_nofile 20000;\n\
         pid {0}/nginx.pid;\nerror_log {0}/error.log;\nevents {{ worker_connections 16000; }}\n\
         http {{\naccess_log off;\n{temporary}server {{\nlisten {address} backlog=4096;\n\
         location = /pub {{ nchan_publisher; nchan_channel_id all; }}\n\
         location = /sub {{ nchan_subscriber eventsource; nchan_channel_id all; \
         nchan_subscriber_first_message newest; }}\n}}\n}}\n",
        dir.display()
    )
}
