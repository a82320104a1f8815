//! `ecgpipe mlflow`: copies recorded runs to a server.

use super::{Exit, Failure, print, runs_folder};
use crate::{
    cli::Mlflow,
    track::{
        mlflow::{Settings, is_spool, sync},
        mlflow_run::SPOOL_FOLDER,
        run_folder,
    },
};

pub(super) fn mlflow(args: &Mlflow) -> Result<Exit, Failure> {
    let Mlflow::Sync { runs, uri } = args;
    let variable = |name: &str| {
        if name == "MLFLOW_TRACKING_URI" && uri.is_some() { uri.clone() } else { std::env::var(name).ok() }
    };
    let settings = Settings::from_environment(&variable, None)
        .map_err(Failure::usage)?
        .ok_or_else(|| Failure::usage("no MLflow server is named").help("give --uri URL or set MLFLOW_TRACKING_URI"))?;
    let folders = if runs.is_empty() {
        run_folder::list(&runs_folder())
    } else {
        runs.iter().map(|name| run_folder::find(&runs_folder(), name)).collect::<Result<_, _>>()?
    };
    let (mut all_complete, mut spool_n) = (true, 0);
    for (folder, run) in folders {
        let spool = folder.join(SPOOL_FOLDER);
        if !is_spool(&spool) {
            continue;
        }
        spool_n += 1;
        let line = match sync(&spool, &settings) {
            Ok(report) => {
                all_complete &= report.complete;
                let url = report.run_url.as_deref().map(|url| format!("  {url}")).unwrap_or_default();
                let aside: Vec<String> = report
                    .set_aside
                    .iter()
                    .map(|item| format!("\n  set aside: {}: {}", item.what, item.reason))
                    .collect();
                format!("{}  {}{url}{}", run.id, report.summary(), aside.concat())
            }
            Err(error) => {
                all_complete = false;
                format!("{}  error: {error}", run.id)
            }
        };
        print(&line);
    }
    if spool_n == 0 {
        print("no run has anything to send");
    }
    Ok(if all_complete { Exit::Success } else { Exit::Failed })
}
