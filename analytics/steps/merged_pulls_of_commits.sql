-- Merged pull requests: those of stored commits with these hashes, and of those that are named, without a commit.
SELECT sha, commits.repo, pr_id
FROM commits JOIN pull_requests USING (pr_id)
WHERE merged_at IS NOT NULL AND sha IN (SELECT unnest(CAST($shas AS VARCHAR[])))
UNION ALL
SELECT NULL, repo, pr_id
FROM pull_requests
WHERE merged_at IS NOT NULL AND pr_id IN (SELECT unnest(CAST($pr_ids AS VARCHAR[])))
