//! Shards are opened and read without a tokenizer and without any of the default features, as
//! `examples/read_shard.rs` does.
#![allow(clippy::unwrap_used, missing_docs)]

use cuvee_data::{Domain, Manifest, Shard, Split, write_synthetic};

#[test]
fn a_shard_is_read_without_a_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    write_synthetic(folder.path(), "made-up", 2_500, true).unwrap();
    let domain = Domain::open(folder.path()).unwrap();
    assert_eq!(domain.name, "made-up");
    assert_eq!(domain.manifest, Manifest::read(folder.path()).unwrap());
    let train = domain.shard(Split::Train);
    assert_eq!((train.documents(), train.tokens()), (3, 2_500));
    let mut all = vec![0; 2_500];
    train.read(0, &mut all);
    for (number, ids) in all.chunks(1_000).enumerate() {
        assert_eq!(train.document(number as u64).unwrap(), ids);
    }
    assert!(train.document(3).is_err());
    train.check_ids(domain.manifest.vocab_size).unwrap();
    assert_eq!(domain.shard(Split::Tune).tokens(), 0);
    // A map keeps its content when the folder is written again.
    let old = Shard::open(&folder.path().join("train")).unwrap();
    write_synthetic(folder.path(), "made-up", 10, false).unwrap();
    let mut kept = vec![0; 2_500];
    old.read(0, &mut kept);
    assert_eq!(kept, all);
    assert_eq!(Domain::open(folder.path()).unwrap().shard(Split::Train).tokens(), 10);
}
