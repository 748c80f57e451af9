-- As of when was last looked for waste.
SELECT looked_at FROM waste_settings
