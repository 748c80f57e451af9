-- Merged pull requests of a repository that have one of these commits.
SELECT DISTINCT pr_id
FROM pr_commits LEFT JOIN pull_requests AS prs USING (pr_id)
WHERE pr_commits.repo = $repo AND list_contains($shas, sha) AND (prs.pr_id IS NULL OR prs.merged_at IS NOT NULL)
ORDER BY pr_id
