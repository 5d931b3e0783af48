//! Real clients, and a real browser, against a server of this checkout.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::checkout::{self, Checkout};
use crate::chromium;

/// The scripts, in the folder of the clients.
const SCRIPTS: [&str; 3] = ["openai_client.py", "webuiapi_client.py", "strict_client.py"];
/// First stages and models of other conditions than a text, trained for two steps: name, config, first stage, another key.
/// The page's test knows the models by their names.
const MODELS: [(&str, &str, &str, &str); 5] = [
    ("kl", "configs/experiments/tiny/first-stage-kl-f2.yaml", "", ""),
    ("vq", "crates/ldm-serve/tests/browser/first-stage-vq.yaml", "", ""),
    ("classes", "configs/experiments/tiny/diffusion-class.yaml", "kl", ""),
    ("layouts", "configs/experiments/tiny/layout.yaml", "vq", ""),
    (
        "maps",
        "configs/experiments/tiny/semantic.yaml",
        "vq",
        "data.params.train.params.task={target: semantic}",
    ),
];

/// The server, which ends with this program's use of it.
struct ServerProcess(Child);

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folders of a test.
struct ClientTest {
    root: PathBuf,
    /// The scripts and what they need.
    tests: PathBuf,
    /// Everything that a test leaves, in `target`.
    folder: PathBuf,
    ldm: PathBuf,
    python: PathBuf,
}

/// Builds `ldm`, installs the clients into `target/clients`, and runs their scripts against `ldm serve`; with `browser` also
/// the page in a headless Chromium.
///
/// # Errors
/// When something cannot be installed or started, and when a script fails.
pub(crate) fn test(checkout: &Checkout, browser: bool) -> Result<()> {
    let root = checkout.root().to_path_buf();
    let target = checkout.target()?;
    let folder = target.join("clients");
    let test = ClientTest {
        tests: root.join("crates/ldm-serve/tests"),
        ldm: target.join("debug/ldm"),
        python: folder.join("venv/bin/python"),
        root,
        folder,
    };
    // Before the build: it may be missing, and says so at once.
    let chromium = browser.then(chromium::ensure).transpose()?;
    succeed(
        Command::new(checkout::cargo()).args(["build", "--quiet", "-p", "ldm-cli"]).current_dir(&test.root),
    )?;
    test.install(browser)?;
    let models = if browser { test.models()? } else { Vec::new() };
    let (server, url) = test.serve(&models)?;
    for script in SCRIPTS {
        println!("{script}");
        succeed(test.script(&format!("clients/{script}")).arg(&url))?;
    }
    if let Some(chromium) = chromium {
        println!("page.py");
        let mut page = test.script("browser/page.py");
        succeed(page.arg(&url).arg(test.folder.join("screenshots")).env("CHROMIUM", chromium))?;
    }
    drop(server);
    Ok(())
}

impl ClientTest {
    /// Installs the packages into an environment of Python.
    fn install(&self, browser: bool) -> Result<()> {
        if !self.python.exists() {
            let venv = self.folder.join("venv");
            succeed(Command::new("python3").args(["-m", "venv"]).arg(venv)).context(
                "python3: expected the module venv; try `sudo apt install python3-venv` (Debian, Ubuntu)",
            )?;
        }
        let mut pip = Command::new(&self.python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
        for set in ["clients", "browser"].into_iter().take(1 + usize::from(browser)) {
            pip.arg("-r").arg(self.tests.join(set).join("requirements.txt"));
        }
        succeed(&mut pip).context("pip cannot install the clients, which needs a network")
    }

    /// Trains the models, unless an earlier test has; `NAME=PATH` of each that is no first stage.
    fn models(&self) -> Result<Vec<OsString>> {
        let runs = self.folder.join("models");
        let mut models = Vec::new();
        for (name, config, first, key) in MODELS {
            let run = runs.join(name);
            if !run.join("model").exists() {
                println!("ldm train {config}");
                // What an interrupted test has left.
                let _ = std::fs::remove_dir_all(&run);
                let mut train = self.ldm();
                train.arg("train").arg(self.root.join(config)).arg(self.tests.join("browser/scenes.yaml"));
                if !first.is_empty() {
                    let mut path = OsString::from("model.params.first_stage_config.params.ckpt_path=");
                    path.push(runs.join(first));
                    train.arg(path);
                }
                train.args(Some(key).filter(|key| !key.is_empty()));
                succeed(train.arg("--run").arg(&run).arg("--quiet").stdout(Stdio::null()))?;
            }
            if !first.is_empty() {
                let mut model = OsString::from(format!("{name}="));
                model.push(run);
                models.push(model);
            }
        }
        Ok(models)
    }

    /// Starts a server of two models, and of others; returns it with its address.
    fn serve(&self, models: &[OsString]) -> Result<(ServerProcess, String)> {
        let data = self.folder.join("data");
        if data.exists() {
            std::fs::remove_dir_all(&data).context("the data of the last server")?;
        }
        let mut ldm = self.ldm();
        ldm.args(["serve", "emoji", "second=emoji"]).args(models);
        ldm.args(["--port", "0", "--quiet", "--data"]).arg(data);
        let child = ldm.stdout(Stdio::piped()).spawn().context("ldm serve does not start")?;
        let mut server = ServerProcess(child);
        let mut url = String::new();
        let stdout = server.0.stdout.take().context("the server's output")?;
        BufReader::new(stdout).read_line(&mut url)?;
        if url.trim().is_empty() {
            bail!("ldm serve: expected an address, got none");
        }
        Ok((server, url.trim().to_owned()))
    }

    fn ldm(&self) -> Command {
        let mut ldm = Command::new(&self.ldm);
        ldm.stdin(Stdio::null());
        ldm
    }

    /// A script of Python, by its path in the folder of the tests.
    fn script(&self, path: &str) -> Command {
        let mut script = Command::new(&self.python);
        script.arg(self.tests.join(path));
        script
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let name: OsString = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("{} does not start", name.display()))?;
    if !status.success() {
        bail!("{}: {status}", name.display());
    }
    Ok(())
}
