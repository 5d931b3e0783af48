//! `ldm inspect`: the contents of a file. Runs no code from it and reads no weights.

use ldm_study::inspect::inspect;

use crate::args::InspectArgs;

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let found = inspect(&args.path, args.config.as_deref())?;
    if args.json {
        println!("{:#}", found.document());
    } else {
        print!("{}", found.text()?);
    }
    Ok(())
}
