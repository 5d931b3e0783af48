//! Captions of scenes, and their parser.

use super::scene::Scene;
use super::words::{Color, Fill, Ground, Place, Shape, Size, Texture};

/// Content of a caption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SceneWords {
    /// Objects, the main one first.
    pub objects: Vec<ObjectWords>,
    /// Texture of the background.
    pub texture: Texture,
    /// Color of the background.
    pub ground: Ground,
}

/// Description of one object in a caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectWords {
    /// Size.
    pub size: Size,
    /// Fill.
    pub fill: Fill,
    /// Color.
    pub color: Color,
    /// Shape.
    pub shape: Shape,
    /// Place.
    pub place: Place,
}

impl Scene {
    /// Description of the scene.
    pub fn words(&self) -> SceneWords {
        let objects = self.objects.iter().map(|object| ObjectWords {
            size: object.size,
            fill: object.fill,
            color: object.color,
            shape: object.shape,
            place: object.place,
        });
        let background = self.background;
        SceneWords { objects: objects.collect(), texture: background.texture, ground: background.ground }
    }

    /// Caption of the scene, in a fixed grammar that [`parse`] reads back:
    ///
    /// ```text
    /// caption    = object { "and" object } "," "on a" [ texture ] ground "background"
    /// object     = "a" size [ fill ] color shape place
    /// ```
    ///
    /// A plain fill and a plain texture are omitted. For example `a large striped red circle on the left and a
    /// small blue star at the top right, on a checked mint background`.
    pub fn caption(&self) -> String {
        self.words().caption()
    }
}

impl SceneWords {
    /// See [`Scene::caption`].
    pub fn caption(&self) -> String {
        let objects: Vec<_> = self.objects.iter().map(|object| object.phrase()).collect();
        let texture =
            if self.texture == Texture::Plain { String::new() } else { format!("{} ", self.texture.word()) };
        format!("{}, on a {texture}{} background", objects.join(" and "), self.ground.word())
    }
}

impl ObjectWords {
    fn phrase(self) -> String {
        let fill = if self.fill == Fill::Plain { String::new() } else { format!("{} ", self.fill.word()) };
        let [size, color, shape] = [self.size.word(), self.color.word(), self.shape.word()];
        format!("a {size} {fill}{color} {shape} {}", self.place.word())
    }
}

/// Parses a caption of [`Scene::caption`]; `None` for any other text.
pub fn parse(caption: &str) -> Option<SceneWords> {
    let (objects, background) = caption.split_once(", on a ")?;
    let objects = objects.split(" and ").map(parse_object).collect::<Option<Vec<_>>>()?;
    let background = background.strip_suffix(" background")?;
    let (texture, ground) = match background.split_once(' ') {
        Some((texture, ground)) => (Texture::from_word(texture)?, ground),
        None => (Texture::Plain, background),
    };
    Some(SceneWords { objects, texture, ground: Ground::from_word(ground)? })
}

fn parse_object(phrase: &str) -> Option<ObjectWords> {
    let (size, rest) = phrase.strip_prefix("a ")?.split_once(' ')?;
    let (first, after) = rest.split_once(' ')?;
    let (fill, rest) = Fill::from_word(first).map_or((Fill::Plain, rest), |fill| (fill, after));
    let (color, rest) = rest.split_once(' ')?;
    let (shape, place) = rest.split_once(' ')?;
    Some(ObjectWords {
        size: Size::from_word(size)?,
        fill,
        color: Color::from_word(color)?,
        shape: Shape::from_word(shape)?,
        place: Place::from_word(place)?,
    })
}
