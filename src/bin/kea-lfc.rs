//! Lease file cleanup.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let a: Vec<String> = std::env::args().collect();
    let get = |o: &str| a.iter().position(|x| x == o).map(|i| a[i + 1].clone().into()).unwrap_or_default();
    let files = leasemgr::lfc::LfcFiles { previous: get("-x"), input: get("-i"), output: get("-o"), finish: get("-f"), pid: get("-p") };
    let family = if a.iter().any(|x| x.starts_with("-4")) { leasemgr::lease::Family::V4 } else { leasemgr::lease::Family::V6 };
    let out = leasemgr::lfc::Cleanup::new(family, files).run()?;
    eprintln!("{out:?}");
    Ok(())
}
