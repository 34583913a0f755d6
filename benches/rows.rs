//! Reading and writing of rows, and escapes of names.

mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use leasemgr::lease::{Lease4, Lease6};
use leasemgr::lease_file::{FileLease, Reader, Writer, escape, unescape};
use support::{Contexts, Outcome, Sample, criterion, leases, text, throughput};

const ROWS: u32 = 10_000;

fn main() -> Outcome {
    let mut criterion = criterion();
    rows::<Lease4>(&mut criterion, "v4")?;
    rows::<Lease6>(&mut criterion, "v6")?;
    names(&mut criterion);
    criterion.final_summary();
    Ok(())
}

fn read<L: FileLease>(text: &[u8]) -> usize {
    let reader = Reader::<L, _>::new(text).ok();
    reader.into_iter().flatten().filter(|row| black_box(row).is_ok()).count()
}

fn rows<L: Sample>(criterion: &mut Criterion, family: &str) -> Outcome {
    for (kind, contexts) in [("plain", Contexts::None), ("with user context", Contexts::All)] {
        let leases = leases::<L>(0..ROWS, contexts)?;
        let text = text(&leases)?;
        assert_eq!(read::<L>(&text), leases.len());
        let mut group = criterion.benchmark_group(format!("{family} rows {kind}"));
        group.throughput(throughput(leases.len(), &text));
        group.bench_function("read", |bencher| bencher.iter(|| read::<L>(&text)));
        group.bench_function("write", |bencher| {
            bencher.iter(|| {
                let mut writer = Writer::resume(Vec::with_capacity(text.len()));
                leases.iter().try_for_each(|lease| writer.append(lease)).map(|()| writer.into_inner())
            });
        });
        group.finish();
    }
    Ok(())
}

fn names(criterion: &mut Criterion) {
    let samples: [(&str, &[u8]); 3] = [
        ("plain", b"host-1234.department.example.org"),
        ("one comma", b"host,1234.department.example.org"),
        ("not ASCII", "ホスト一二三四.例え.jp".as_bytes()),
    ];
    for (kind, name) in samples {
        let mut group = criterion.benchmark_group(format!("name {kind}"));
        group.throughput(Throughput::Bytes(name.len() as u64));
        let mut escaped = Vec::new();
        escape(name, &mut escaped);
        let mut out = Vec::with_capacity(escaped.len());
        group.bench_function("escape", |bencher| {
            bencher.iter(|| {
                out.clear();
                escape(black_box(name), &mut out);
                out.len()
            });
        });
        group.bench_function("unescape", |bencher| {
            bencher.iter(|| {
                out.clear();
                unescape(black_box(&escaped), &mut out);
                out.len()
            });
        });
        group.finish();
    }
}
