//! Every page in exactly one hand.

use types::PageId;

use super::MemCache;

/// Who holds a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Free,
    Tree,
    Row(usize),
}

impl MemCache {
    /// Proves `free + cached + private == total` page by page, the rows' view
    /// of the tree, and the tree itself. O(pages + tokens in the tree): for
    /// tests, not for every step of a server.
    pub fn audit(&self) -> Result<(), String> {
        self.tree.audit(self.holds.iter().flatten().map(|hold| hold.node))?;
        self.audit_rows()?;
        let owners = self.audit_owners()?;
        if let Some(windows) = &self.windows {
            let owned = owners.iter().map(|owner| match owner {
                Owner::Free => None,
                Owner::Tree => Some(true),
                Owner::Row(_) => Some(false),
            });
            windows.audit(&owned.collect::<Vec<_>>(), &self.tables)?;
        }
        self.states.as_ref().map_or(Ok(()), |states| states.audit(&self.tree))
    }

    fn audit_rows(&self) -> Result<(), String> {
        let num_open = self.holds.iter().flatten().count();
        if num_open + self.tables.num_free_rows() != self.tables.num_rows() {
            return Err(format!("{num_open} rows held, {} free", self.tables.num_free_rows()));
        }
        for (row, hold) in self.holds.iter().enumerate() {
            let pages = self.tables.pages(row);
            let Some(hold) = hold else {
                if pages.is_empty() {
                    continue;
                }
                return Err(format!("free row {row} has pages {pages:?}"));
            };
            let expected = self.tree.prefix_pages(hold.node);
            if pages.get(..hold.num_tree_pages) != Some(&expected[..]) {
                return Err(format!("row {row}: pages {pages:?}, the tree says {expected:?}"));
            }
        }
        Ok(())
    }

    fn audit_owners(&self) -> Result<Vec<Owner>, String> {
        let mut owners = vec![None; self.allocator.num_pages()];
        let mut claim = |page: PageId, owner: Owner| match owners.get_mut(page.0 as usize) {
            None => Err(format!("{owner:?} holds page {}, which is not there", page.0)),
            Some(Some(other)) => {
                Err(format!("page {} is held by {other:?} and by {owner:?}", page.0))
            }
            Some(vacant) => {
                *vacant = Some(owner);
                Ok(())
            }
        };
        for &page in self.allocator.free_pages() {
            claim(page, Owner::Free)?;
        }
        for page in self.tree.pages() {
            claim(page, Owner::Tree)?;
        }
        for (row, hold) in self.holds.iter().enumerate() {
            let num_tree_pages = hold.map_or(0, |hold| hold.num_tree_pages);
            for &page in &self.tables.pages(row)[num_tree_pages..] {
                claim(page, Owner::Row(row))?;
            }
        }
        let is_lost = |(page, owner): (usize, Option<Owner>)| {
            owner.ok_or_else(|| format!("page {page} is lost"))
        };
        owners.into_iter().enumerate().map(is_lost).collect()
    }
}
