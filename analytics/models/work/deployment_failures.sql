-- Deployments that failed, or were rolled back within a day. One row per such deployment.
-- @deployment_id: Deployment
-- @failed_at: When it failed or was rolled back, UTC
-- @rolled_back_by: Deployment that put an earlier commit back; NULL when it failed as such
-- A deployment of a commit that was first deployed to the same environment before another one takes back those of the other
-- one; to deploy that again after all takes nothing back.
WITH told AS (
  SELECT
    *,
    coalesce(
      failed_at, CASE WHEN lower(status) IN ('failure', 'failed', 'error') THEN coalesce(finished_at, started_at) END
    ) AS broken_at
  FROM deployments
),
succeeded AS (
  SELECT
    deployment_id, repo, lower(environment) AS environment, finished_at,
    min(finished_at) OVER (PARTITION BY repo, lower(environment), sha) AS first_at
  FROM told
  WHERE finished_at IS NOT NULL AND sha IS NOT NULL AND (broken_at IS NULL OR broken_at > finished_at)
),
rolled_back AS (
  SELECT taken.deployment_id, min(again.finished_at) AS failed_at,
    arg_min(again.deployment_id, again.finished_at) AS rolled_back_by
  FROM succeeded AS taken
    JOIN succeeded AS again ON again.repo = taken.repo AND again.environment IS NOT DISTINCT FROM taken.environment
      AND again.first_at < taken.first_at AND again.finished_at > taken.finished_at
      AND again.finished_at <= taken.finished_at + INTERVAL 1 DAY
  GROUP BY taken.deployment_id
)
SELECT
  deployment_id,
  least(broken_at, rolled_back.failed_at) AS failed_at,
  CASE WHEN broken_at IS NULL THEN rolled_back_by END AS rolled_back_by
FROM told LEFT JOIN rolled_back USING (deployment_id)
WHERE broken_at IS NOT NULL OR rolled_back.failed_at IS NOT NULL
