"""Pictures of what the pipeline does to a study. Figures are made without pyplot, so nothing global changes."""
