-- Deployments to production that succeeded or failed by now. One row per deployment.
-- @environment: Where to, as the forge calls it
-- @ended_at: When it had succeeded, or failed, UTC
-- @first_at: When its commit was first deployed there, UTC: before other deployments, when it puts an earlier one back
-- @is_eligible: Whether it succeeded and stayed: it did not fail, and was not rolled back, within a day; else it failed
WITH judged AS (
  SELECT
    deployment_id, repo, environment, sha, finished_at,
    lower(coalesce(status, 'success')) AS word,
    failures.failed_at AS broken_at,
    as_of
  FROM deployments CROSS JOIN as_of
    LEFT JOIN deployment_failures AS failures USING (deployment_id)
    JOIN scorecard_terms ON coalesce(finished_at, deployments.failed_at, started_at) >= applies_from
      AND coalesce(finished_at, deployments.failed_at, started_at) < applies_to
  WHERE list_contains(production, lower(trim(environment)))
)
SELECT
  deployment_id, repo, environment,
  coalesce(finished_at, broken_at) AS ended_at,
  min(coalesce(finished_at, broken_at)) OVER (PARTITION BY repo, environment, coalesce(sha, deployment_id)) AS first_at,
  finished_at IS NOT NULL AND (broken_at IS NULL OR broken_at > as_of OR broken_at >= finished_at + INTERVAL 1 DAY)
    AS is_eligible
FROM judged
WHERE coalesce(finished_at, broken_at) <= as_of
  AND (broken_at IS NOT NULL OR word IN ('success', 'successful', 'succeeded', 'completed', 'inactive', 'undeployed', 'deployed'))
