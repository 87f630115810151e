"""Everything that is looked at: tables, figures, HTML pages, the dashboard."""
