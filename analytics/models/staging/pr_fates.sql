-- What became of pull requests. One row per pull request.
-- @pr_id: Repository and number: acme/shop!46
-- @merged_at: When it was merged, UTC; NULL when it was not
-- @landed_at: When it was merged, or landed again after a revert, UTC
-- @is_given_up: Whether it was closed without being merged
-- @reverted_at: When it was reverted, at least half of it by lines, UTC; NULL when it was not, or has landed again
-- @deployed_at: When it was first in production, UTC: by a deployment that succeeded and neither failed nor was rolled back within a day
-- @changed_at: When it last changed, as far as is known, UTC
WITH arrivals AS (
  SELECT pr_id, min(finished_at) AS deployed_at
  FROM deployment_prs JOIN deployments USING (deployment_id)
    SEMI JOIN environments ON environments.environment = lower(trim(deployments.environment))
    LEFT JOIN (SELECT deployment_id, failed_at AS broken_at FROM deployment_failures) USING (deployment_id)
  WHERE finished_at IS NOT NULL AND (broken_at IS NULL OR broken_at >= finished_at + INTERVAL 1 DAY)
  GROUP BY pr_id
)
SELECT
  pr_id,
  merged_at,
  greatest(merged_at, landed_again_at) AS landed_at,
  closed_at IS NOT NULL AND merged_at IS NULL AS is_given_up,
  CASE WHEN share >= 0.5 AND landed_again_at IS NULL THEN reverts.reverted_at END AS reverted_at,
  deployed_at,
  undone_by,
  greatest(prs.created_at, merged_at, closed_at, prs.updated_at, reverts.reverted_at, landed_again_at) AS changed_at
FROM pull_requests AS prs
  LEFT JOIN pr_reverts AS reverts USING (pr_id)
  LEFT JOIN arrivals USING (pr_id)
