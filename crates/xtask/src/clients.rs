//! Real clients against a server of this checkout.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::checkout::{self, Checkout};

/// The scripts, in the folder of the clients.
const SCRIPTS: [&str; 3] = ["openai_client.py", "webuiapi_client.py", "strict_client.py"];

/// The server, which ends with this program's use of it.
struct ServerProcess(Child);

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds `ldm`, installs the clients into `target/clients`, and runs their scripts against `ldm serve`; with `browser` also
/// the page in a headless Chromium, which must be installed.
///
/// # Errors
/// When something cannot be installed or started, and when a script fails.
pub(crate) fn test(checkout: &Checkout, browser: bool) -> Result<()> {
    let root = checkout.root();
    let folder = root.join("target/clients");
    let tests = root.join("crates/ldm-serve/tests");
    succeed(Command::new(checkout::cargo()).args(["build", "--quiet", "-p", "ldm-cli"]).current_dir(root))?;
    let python = folder.join("venv/bin/python");
    if !python.exists() {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    pip.arg(tests.join("clients/requirements.txt"));
    succeed(if browser { pip.arg("playwright") } else { &mut pip })?;
    let data = folder.join("data");
    if data.exists() {
        std::fs::remove_dir_all(&data).context("the data of the last server")?;
    }
    let (server, url) = serve(root, &data)?;
    for script in SCRIPTS {
        println!("{script}");
        succeed(Command::new(&python).arg(tests.join("clients").join(script)).arg(&url))?;
    }
    if browser {
        let shots = folder.join("screenshots");
        succeed(Command::new(&python).arg(tests.join("browser/page.py")).arg(&url).arg(shots))?;
    }
    drop(server);
    Ok(())
}

/// Starts a server of two models; returns it with its address.
fn serve(root: &Path, data: &Path) -> Result<(ServerProcess, String)> {
    let mut ldm = Command::new(root.join("target/debug/ldm"));
    ldm.args(["serve", "emoji", "second=emoji", "--port", "0", "--quiet", "--data"]).arg(data);
    let child =
        ldm.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("ldm serve does not start")?;
    let mut server = ServerProcess(child);
    let mut url = String::new();
    let stdout = server.0.stdout.take().context("the server's output")?;
    BufReader::new(stdout).read_line(&mut url)?;
    if url.trim().is_empty() {
        bail!("ldm serve: expected an address, got none");
    }
    Ok((server, url.trim().to_owned()))
}

fn succeed(command: &mut Command) -> Result<()> {
    let name: OsString = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("{} does not start", name.display()))?;
    if !status.success() {
        bail!("{}: {status}", name.display());
    }
    Ok(())
}
