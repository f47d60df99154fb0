use super::*;
use crate::executor::block_on;
use crate::file::{AttributeChange, FileType, Inode, OpenFile, SuperBlock, read_all};
use crate::fs::{NewNode, OpenFlags, RenameMode};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::IoBuffer;
use alloc::string::String;

/// What is below: `file`, `link` (to it, a hard one), `dir/in`, `empty`.
fn below() -> (Arc<TmpfsInode>, Arc<OverlayInode>) {
    let root = tmpfs::in_memory(0o755);
    let file = root.create_node(b"file", NewNode::Regular, 0o640).unwrap();
    fill(&(file.clone() as Arc<dyn Inode>), b"below");
    root.link_node(b"link", file).unwrap();
    let dir = root.create_node(b"dir", NewNode::Directory, 0o755).unwrap();
    dir.create_node(b"in", NewNode::Regular, 0o644).unwrap();
    root.create_node(b"empty", NewNode::Directory, 0o755)
        .unwrap();
    let (fs, inode) = root.clone().made();
    let (_, over) = Overlay::over(SuperBlock::new(&tmpfs::TYPE, fs, inode, false));
    (root, over)
}

fn open(inode: &Arc<dyn Inode>, flags: OpenFlags) -> Arc<OpenFile> {
    OpenFile::new(block_on(inode.clone().open(flags)).unwrap(), flags)
}

fn fill(inode: &Arc<dyn Inode>, bytes: &[u8]) {
    let file = open(inode, OpenFlags::READ_WRITE);
    let buffer = IoBuffer::Kernel(bytes.to_vec());
    let mut io = Io::new(Direction::Write, Some(0), buffer, IoFlags::empty());
    assert_eq!(block_on(file.complete(&mut io)), Ok(bytes.len()));
}

fn contents(inode: &Arc<dyn Inode>) -> Vec<u8> {
    block_on(read_all(&open(inode, OpenFlags::empty()))).unwrap()
}

fn find(directory: &Arc<OverlayInode>, path: &str) -> Result<Arc<dyn Inode>> {
    let mut at: Arc<dyn Inode> = directory.clone();
    for name in path.split('/') {
        at = block_on(at.lookup(name.as_bytes()))?;
    }
    Ok(at)
}

fn names(directory: &Arc<dyn Inode>) -> Vec<String> {
    let ops = block_on(directory.clone().open(OpenFlags::empty())).unwrap();
    let mut names = Vec::new();
    let mut sink = |entry: &crate::fs::DirEntry<'_>| {
        names.push(String::from_utf8(entry.name.to_vec()).unwrap());
        true
    };
    block_on(ops.read_dir(0, &mut sink)).unwrap();
    names.sort();
    names.split_off(2)
}

#[test]
fn what_is_below_is_seen_and_never_changes() {
    let (below, root) = below();
    let file = find(&root, "file").unwrap();
    let reader = open(&file, OpenFlags::empty());
    assert_eq!(contents(&file), b"below");
    fill(&file, b"above");
    assert_eq!(contents(&file), b"above");
    assert_eq!(
        block_on(read_all(&reader)).unwrap(),
        b"above",
        "opened before"
    );
    assert_eq!(
        contents(&find(&root, "link").unwrap()),
        b"above",
        "it is one file"
    );
    let lower: Arc<dyn Inode> = below.child(b"file").unwrap().unwrap();
    assert_eq!(contents(&lower), b"below");
    let stat = block_on(file.stat()).unwrap();
    assert_eq!((stat.mode & 0o7777, stat.links), (0o640, 2));
    assert_eq!(stat.inode, block_on(lower.stat()).unwrap().inode);
}

#[test]
fn names_that_were_removed_stay_so() {
    let (_, root) = below();
    let file = find(&root, "file").unwrap();
    block_on(root.unlink(b"file")).unwrap();
    assert!(matches!(find(&root, "file"), Err(Errno::ENOENT)));
    assert_eq!(block_on(file.stat()).unwrap().links, 1);
    assert_eq!(
        block_on(root.remove_directory(b"dir")),
        Err(Errno::ENOTEMPTY)
    );
    block_on(root.remove_directory(b"empty")).unwrap();
    assert_eq!(names(&(root.clone() as Arc<dyn Inode>)), ["dir", "link"]);
    let made = block_on(root.create(b"empty", NewNode::Directory, 0o700)).unwrap();
    assert!(names(&made).is_empty());
    block_on(root.create(b"file", NewNode::Regular, 0o600)).unwrap();
    assert_eq!(contents(&find(&root, "file").unwrap()), b"");
    assert_eq!(
        block_on(root.create(b"link", NewNode::Regular, 0o600)).err(),
        Some(Errno::EEXIST)
    );
}

#[test]
fn directories_move_with_all_that_is_in_them() {
    let (_, root) = below();
    let rename = |from: &str, to: &Arc<dyn Inode>, name: &str, mode| {
        block_on(root.rename(from.as_bytes(), to.clone(), name.as_bytes(), mode))
    };
    let here: Arc<dyn Inode> = root.clone();
    let empty = find(&root, "empty").unwrap();
    rename("dir", &empty, "moved", RenameMode::Replace).unwrap();
    assert!(find(&root, "empty/moved/in").is_ok());
    assert!(matches!(find(&root, "dir"), Err(Errno::ENOENT)));
    assert_eq!(names(&here), ["empty", "file", "link"]);
    let moved = find(&root, "empty/moved").unwrap();
    assert_eq!(moved.parent().unwrap().name_of(&*moved).unwrap(), b"moved");
    assert_eq!(
        rename("empty", &moved, "x", RenameMode::Replace),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        rename("file", &here, "empty", RenameMode::Replace),
        Err(Errno::EISDIR)
    );
    rename("file", &here, "empty", RenameMode::Exchange).unwrap();
    assert_eq!(contents(&find(&root, "empty").unwrap()), b"below");
    assert!(find(&root, "file/moved/in").is_ok());
    assert_eq!(
        rename("link", &here, "file", RenameMode::NoReplace),
        Err(Errno::EEXIST)
    );
    // Two names of one file: nothing happens.
    rename("link", &here, "empty", RenameMode::Replace).unwrap();
    assert_eq!(names(&here), ["empty", "file", "link"]);
}

#[test]
fn attributes_and_sizes_change_above() {
    let (below, root) = below();
    let file = find(&root, "file").unwrap();
    let change = AttributeChange {
        mode: Some(0o600),
        size: Some(2),
        ..AttributeChange::default()
    };
    block_on(file.set_attributes(change)).unwrap();
    let stat = block_on(file.stat()).unwrap();
    assert_eq!((stat.mode & 0o7777, stat.size), (0o600, 2));
    assert_eq!(contents(&file), b"be");
    let lower: Arc<dyn Inode> = below.child(b"file").unwrap().unwrap();
    assert_eq!(block_on(lower.stat()).unwrap().size, 5);
    let dir = find(&root, "dir").unwrap();
    block_on(dir.create(b"new", NewNode::Fifo, 0o600)).unwrap();
    assert_eq!(names(&dir), ["in", "new"]);
    assert_eq!(find(&root, "dir/new").unwrap().file_type(), FileType::Fifo);
}

#[test]
fn a_tree_is_laid_over_it() {
    let (_, root) = below();
    let tree = tmpfs::in_memory(0o755);
    let dir = tree.create_node(b"dir", NewNode::Directory, 0o755).unwrap();
    let file = dir
        .create_node(b"program", NewNode::Regular, 0o755)
        .unwrap();
    fill(&(file as Arc<dyn Inode>), b"elf");
    tree.create_node(b"file", NewNode::Symlink(b"x".to_vec()), 0o777)
        .unwrap();
    block_on(lay_over(&root, &tree)).unwrap();
    assert_eq!(contents(&find(&root, "dir/program").unwrap()), b"elf");
    assert!(find(&root, "dir/in").is_ok());
    assert_eq!(find(&root, "file").unwrap().file_type(), FileType::Symlink);
}

#[test]
fn files_without_names_get_one_if_they_may() {
    let (_, root) = below();
    for can_be_linked in [true, false] {
        let file = block_on(root.create_unnamed(0o600, can_be_linked)).unwrap();
        assert_eq!(block_on(file.stat()).unwrap().links, 0);
        let linked = block_on(root.link(b"named", file));
        assert_eq!(linked.is_ok(), can_be_linked, "{linked:?}");
    }
    assert_eq!(
        block_on(find(&root, "named").unwrap().stat())
            .unwrap()
            .links,
        1
    );
}
