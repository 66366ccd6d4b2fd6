//! `logship etcd put`: checks, compares, writes.
//!
//! The write has a condition, that nobody else has written since the comparison.

use std::io::{self, Write};
use std::sync::Arc;

use crate::cli::{colours, complain, hint};
use crate::config::etcd::{Client, Value};
use crate::config::read_value;
use crate::exit::Exit;
use crate::tail::Source;
use crate::text::shown;

use super::args::PutArgs;
use super::changes::Changes;
use super::{Place, failed, named, usage};

/// Runs `logship etcd put`.
pub fn run(args: &PutArgs) -> Result<Exit, Exit> {
    let place = Place::find(&args.key, &args.reach)?;
    let mut client = place.client()?;
    let bytes = place.value_in(args.file.as_deref())?;
    let value = named(args.file.as_deref(), bytes);
    let new = place.judge(&value.key, &value.bytes)?;
    if new.is_empty() && !args.force {
        let problem = "the list is empty: whoever follows the key would stop all that it names";
        return Err(usage(
            problem,
            "if that is meant, add --force, or delete the key",
        ));
    }
    let old = client.get(&place.key).map_err(|error| failed(&error))?;
    tell_changes(&place, old.as_ref(), &new);
    if args.dry_run {
        say(&format!("{}: not written (--dry-run)", shown(&place.key)));
        return Ok(Exit::Settled);
    }
    if let Some(old) = old.as_ref().filter(|old| old.bytes == value.bytes) {
        let (key, revision) = (shown(&place.key), old.mod_revision);
        say(&format!(
            "{key}: the same bytes are there already, since revision {revision}"
        ));
        return Ok(Exit::Settled);
    }
    let revision = if args.force {
        client
            .put(&place.key, &value.bytes)
            .map_err(|error| failed(&error))?
    } else {
        put_if_unchanged(&mut client, &place.key, &value.bytes, old.as_ref())?
    };
    say(&format!(
        "{}: written at revision {revision}",
        shown(&place.key)
    ));
    Ok(Exit::Settled)
}

/// What is written is compared with what is there, as far as that can be read.
fn tell_changes(place: &Place, old: Option<&Value>, new: &[Arc<Source>]) {
    let key = shown(&place.key);
    let was = match old {
        None => {
            say(&format!("{key}: there is nothing yet"));
            Vec::new()
        }
        Some(old) => match read_value(&place.key, &old.bytes, &place.config) {
            Ok((sources, _)) => sources,
            Err(mistakes) => {
                let first = mistakes
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                say(&format!(
                    "{key}: what is there is refused by logship: {first}"
                ));
                Vec::new()
            }
        },
    };
    let changes = Changes::between(&was, new, place.config.line_bytes_max());
    say(&format!("{key}: {}", changes.summary()));
    let _ = io::stdout().write_all(changes.describe(colours(&io::stdout())).as_bytes());
}

fn put_if_unchanged(
    client: &mut Client,
    key: &str,
    bytes: &[u8],
    old: Option<&Value>,
) -> Result<i64, Exit> {
    let seen = old.map_or(0, |old| old.mod_revision);
    let put = client
        .put_if(key, bytes, seen)
        .map_err(|error| failed(&error))?;
    if let Some(revision) = put {
        return Ok(revision);
    }
    // Somebody else; or it was us, and the answer was lost on the way.
    let now = client.get(key).map_err(|error| failed(&error))?;
    match now {
        Some(now) if now.bytes == bytes => Ok(now.mod_revision),
        now => {
            let revision = now.map_or_else(
                || "it is gone".to_owned(),
                |now| format!("it is at revision {} now", now.mod_revision),
            );
            let key = shown(key);
            complain(
                &format!(
                    "'{key}' was changed by somebody else meanwhile, {revision}: nothing is written"
                ),
                None,
            );
            hint("look at the change (logship etcd get), then try again; --force writes over it");
            Err(Exit::CouldNotRun)
        }
    }
}

/// Whoever hangs up early does not want the rest.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
