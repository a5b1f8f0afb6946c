//! The place of an address.

use maxminddb::geoip2;

/// Where an address is, as far as the database knows. Names are in English.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    pub continent_name: Option<String>,
    /// ISO 3166-1, two letters.
    pub country_iso_code: Option<String>,
    pub country_name: Option<String>,
    /// ISO 3166-2: country and subdivision, such as `GB-ENG`.
    pub region_iso_code: Option<String>,
    /// Of the smallest subdivision that the database knows.
    pub region_name: Option<String>,
    pub city_name: Option<String>,
    /// Degrees.
    pub latitude: Option<f64>,
    /// Degrees.
    pub longitude: Option<f64>,
}

impl Place {
    /// `None` if nothing is known.
    pub(crate) fn of(city: &geoip2::City<'_>) -> Option<Place> {
        let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let country = text(city.country.iso_code);
        let region = city.subdivisions.last();
        let place = Place {
            continent_name: text(city.continent.names.english),
            country_name: text(city.country.names.english),
            region_iso_code: country
                .as_ref()
                .zip(region.and_then(|region| text(region.iso_code)))
                .map(|(a, b)| format!("{a}-{b}")),
            region_name: region.and_then(|region| text(region.names.english)),
            city_name: text(city.city.names.english),
            latitude: city.location.latitude,
            longitude: city.location.longitude,
            country_iso_code: country,
        };
        (place != Place::default()).then_some(place)
    }
}
