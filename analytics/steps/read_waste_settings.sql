-- The row of waste_settings, from JSON objects. `shape` gives the columns of the settings with their types.
CREATE OR REPLACE TEMP TABLE found AS
SELECT
  CAST($looked_at AS TIMESTAMP) AS looked_at,
  from_json(CAST($settings AS JSON), $shape) AS settings,
  from_json(CAST($versions AS JSON), '"MAP(VARCHAR, VARCHAR)"') AS versions,
  from_json(CAST($parameters AS JSON), '"MAP(VARCHAR, VARCHAR)"') AS parameters
