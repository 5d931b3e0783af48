//! `ldm inspect`: the contents of a file. Runs no code from it and reads no weights.

use ldm_study::inspect::inspect;

use crate::args::InspectArgs;
use crate::terminal::{self, out};

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let found = inspect(&args.path, args.config.as_deref())?;
    if args.json {
        terminal::write_json(&found.document(), false)?;
    } else {
        out!("{}", found.text()?)?;
    }
    Ok(())
}
