-- Merged pull requests of a repository that have one of these commits, by commit.
SELECT sha, pr_id
FROM pr_commits LEFT JOIN pull_requests AS prs USING (pr_id)
WHERE pr_commits.repo = $repo AND sha IN (SELECT unnest(CAST($shas AS VARCHAR[])))
  AND (prs.pr_id IS NULL OR prs.merged_at IS NOT NULL)
